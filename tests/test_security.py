"""Training and evaluation use no network. Ruff bans further unsafe calls in all files: see pyproject.toml."""

import json
import socket

import pytest

from conftest import ROOT, TINY_VIT
from miniatures import write_directory
from network_guard import closed_network
from typed import typed


def test_commands__train_then_evaluate_as_typed_and_make_no_connection(tmp_path):
    """With both spellings of keys."""
    write_directory(tmp_path)
    backbone = json.dumps(TINY_VIT).replace('"', "")
    data = ["--pytorch_data_dir", str(tmp_path), "dir_dataset_name=mine", "--dir_dataset_n_classes", "3"]
    model = ["model_type=vit_small", "pretrained_weights=random", f"backbone_kwargs={backbone}", "dim=32"]
    small = ["res=32", "val_res=32", "batch_size=2", "--max_steps", "2", "val_freq=2", "num_workers=1"]
    place = [f"output_root={tmp_path / 'outputs'}", "experiment_name=typed", "accelerator=cpu"]
    train = ["train_segmentation_eigen", "--config-name", "train_config_directory", *data, *model, *small, *place]
    run_dir = tmp_path / "outputs" / "typed"
    evaluate = ["eval_segmentation", f"model_paths=[{run_dir / 'last.ckpt'}]", "num_workers=0", "accelerator=cpu"]
    with closed_network() as outward:
        for script, *words in (train, evaluate):
            done = typed(ROOT / f"src_EAGLE/{script}.py", *words)
            assert done.returncode == 0, done.stderr
    assert "class IoU" in done.stdout
    assert "cluster+crf" in done.stdout
    assert outward == []
    assert (run_dir / "last_grid.png").is_file()
    assert not {"wandb", "tensorboard"} & {path.name for path in run_dir.iterdir()}


def test_closed_network__notices_a_connection():
    with closed_network() as outward, pytest.raises(OSError, match="the network is closed"):
        socket.create_connection(("pypi.org", 80), 1)
    assert outward == ["socket.getaddrinfo pypi.org"]
