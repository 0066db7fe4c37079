"""Training and evaluation use no network. Ruff bans further unsafe calls in all files: see pyproject.toml."""

import json
import subprocess
import sys

from conftest import ROOT, TINY_VIT
from miniatures import write_directory

GUARD = """
import sys
outward = []

def guard(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        outward.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}")
        raise OSError("the network is closed")

sys.addaudithook(guard)
"""

RUN = """
import json, runpy
for words in json.loads(sys.argv[1]):
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stopped:
        assert not stopped.code, stopped.code
print(json.dumps(outward))
"""


def test_commands__train_then_evaluate_as_typed_and_make_no_connection(tmp_path):
    """With both spellings of keys. The guard is installed before the first import, and both run in one process."""
    write_directory(tmp_path)
    backbone = json.dumps(TINY_VIT).replace('"', "")
    data = ["--pytorch_data_dir", str(tmp_path), "dir_dataset_name=mine", "--dir_dataset_n_classes", "3"]
    model = ["model_type=vit_small", "pretrained_weights=random", f"backbone_kwargs={backbone}", "dim=32"]
    small = ["res=32", "val_res=32", "batch_size=2", "--max_steps", "2", "val_freq=2", "num_workers=1"]
    place = [f"output_root={tmp_path / 'outputs'}", "experiment_name=typed", "accelerator=cpu"]
    train = ["train_segmentation_eigen.py", "--config-name", "train_config_directory", *data, *model, *small, *place]
    run_dir = tmp_path / "outputs" / "typed"
    evaluate = ["eval_segmentation.py", f"model_paths=[{run_dir / 'last.ckpt'}]", "num_workers=0", "accelerator=cpu"]
    done = subprocess.run(
        [sys.executable, "-c", GUARD + RUN, json.dumps([train, evaluate])],
        cwd=ROOT / "src_EAGLE",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "class IoU" in done.stdout
    assert "strict mIoU" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
    assert (run_dir / "last_grid.png").is_file()
    assert not {"wandb", "tensorboard"} & {path.name for path in run_dir.iterdir()}


def test_guard__notices_a_connection():
    probe = "import socket\ntry: socket.create_connection(('pypi.org', 80), 1)\nexcept OSError: print(outward)"
    done = subprocess.run([sys.executable, "-c", GUARD + probe], capture_output=True, text=True)
    assert "socket.getaddrinfo pypi.org" in done.stdout
