"""An installed wheel works outside a checkout: with all its files, in any folder, without optional packages."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT, TINY_VIT
from miniatures import write_halves

COMMANDS = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])

# Blocks the optional packages, then uses the library as in the README.
USE = """
import json, sys
sys.modules |= dict.fromkeys(("onnx", "onnxscript", "onnxruntime", "pydensecrf"))
from pathlib import Path
import eagle
from eagle.checkpoints import StoredSegmenter, write_stored
from eagle.checkpoints import load_segmenter
from eagle.config.schema import EvalConfig
from eagle.config.application import parse_command_line
from eagle.config.validation import plain
from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.segmenter import LitUnsupervisedSegmenter

segmenter = LitUnsupervisedSegmenter(2, json.loads(sys.argv[1]))
write_stored(StoredSegmenter(2, plain(segmenter.cfg), segmenter.state_dict(), None), Path("run.ckpt"))
words = ["run_crf=false", "num_workers=0", "accelerator=cpu"]
evaluate_checkpoint(Path("run.ckpt"), parse_command_line(EvalConfig, words))
from importlib.metadata import distribution

commands = [entry.name for entry in distribution("eagle-segmentation").entry_points if callable(entry.load())]
print(json.dumps({"from": eagle.__file__, "dim": load_segmenter("run.ckpt").cfg.dim, "commands": sorted(commands)}))
"""


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-index", "--target", folder, wheel)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because setuptools writes into the source folder."""
    source = tmp_path_factory.mktemp("source")
    tracked = ["pyproject.toml", "README.md", "LICENSE", "src_EAGLE"]
    for path in (path for name in tracked for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()):
        if "__pycache__" not in path.parts:
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    pip("wheel", "--no-build-isolation", "--wheel-dir", source / "wheels", source)
    return next((source / "wheels").glob("*.whl"))


def test_wheel__has_every_file_of_the_library(wheel):
    sources = ROOT / "src_EAGLE"
    files = [path for path in (sources / "eagle").rglob("*.*") if "__pycache__" not in path.parts]
    ours = {path.relative_to(sources).as_posix() for path in files}
    assert {"eagle/evaluation/report.html.jinja", "eagle/config/fidelity/paper.yml"} <= ours
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert ours - names == set()
    assert all(name.startswith("eagle") and "/" in name for name in names), "no module beside our packages"


@pytest.mark.slow
def test_installed_copy__builds_loads_and_reports_outside_the_checkout(site, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write_halves(elsewhere / "datasets" / "halves")  # the default folder outside a repository
    values = {
        "dataset_name": "directory", "dir_dataset_name": "halves", "dir_dataset_n_classes": 2, "val_res": 32, "dim": 32,
        "pretrained_weights": "random", "backbone_kwargs": TINY_VIT, "fidelity": "paper",
    }  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", USE, json.dumps(values)],
        cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert Path(result["from"]).is_relative_to(site)
    assert result["dim"] == 32
    assert result["commands"] == COMMANDS
    command = [sys.executable, site / "bin" / COMMANDS[0], "--version"]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("eagle-segmentation 0.")
    assert "halves" in (elsewhere / "run_report.html").read_text(encoding="utf-8")
