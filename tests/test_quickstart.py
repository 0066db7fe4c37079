"""``make quickstart``'s script, on a few mosaics with a local weights file."""

import json
import os
import subprocess
import sys

import pytest
import timm
from safetensors.torch import save_file

from conftest import ROOT

RUN = """
import runpy, sys
from network_guard import closed_network
sys.argv = ["quickstart.py", *sys.argv[1:]]
with closed_network() as outward:
    runpy.run_path("scripts/quickstart.py", run_name="__main__")
assert not outward, outward
"""
REFINED = ("", "+spectral", "+spectral+crf")
MAPS = [f"{name}{part}" for part in REFINED for name in ("linear", "cluster")]
METHODS = ("k-means on K", "checkpoint=last ", "checkpoint=last_tree ")


def run_quickstart(*words):
    command = [sys.executable, "-c", RUN, *words]
    # The guard watches this process; pip, which would fetch the backbone, is one of its own.
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src_EAGLE:{ROOT}/scripts:{ROOT}/tests", "PIP_NO_INDEX": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_quickstart__trains_and_scores_probe_and_tree_beside_kmeans(tmp_path):
    backbone = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0)
    weights = tmp_path / "backbone.safetensors"
    save_file(backbone.state_dict(), weights)
    output_dir = tmp_path / "outputs"
    words = [f"output_dir={output_dir}", f"data_dir={tmp_path / 'datasets'}", "n_train=8", "n_val=2"]
    words += [f"pretrained_weights={weights}", "max_steps=2"]
    done = run_quickstart(*words)
    assert done.returncode == 0, done.stderr
    run = output_dir / "eagle"
    for name in ("last", "last_tree"):
        evaluation = json.loads((run / f"{name}_eval.json").read_text())
        assert [scored for scored in evaluation["scores"] if "@" not in scored] == MAPS  # but for finer cuts
        assert list(evaluation["kmeans"]) == [f"cluster{part}" for part in REFINED]
        for file in (f"{name}_grid.png", f"{name}_confusion.png", f"{name}_report.html"):
            assert (run / file).stat().st_size > 0
    assert all(method in done.stdout for method in METHODS)
    assert f"pretrained_weights: {weights}\n" in (run / "config.yml").read_text()
    assert len(list((tmp_path / "datasets/mosaics_8_2_0/imgs/train").iterdir())) == 8
