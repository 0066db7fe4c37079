"""Full or read-only disks end every command that writes with one line that names the file."""

import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from conftest import ROOT, TINY_VIT
from eagle.commands.runs import train_segmentation
from eagle.config.application import run_command
from eagle.config.schema import DatasetConfig, TrainConfig
from eagle.files import written_atomically
from miniatures import write_directory

BACKBONE = "backbone_kwargs={" + ", ".join(f"{name}: {value}" for name, value in TINY_VIT.items()) + "}"
SMALL = [
    "model_type=vit_small",
    "pretrained_weights=random",
    "dim=32",
    "res=32",
    "val_res=32",
    "batch_size=2",
    BACKBONE,
]
QUICK = ["max_steps=2", "val_freq=2", "num_workers=0", "accelerator=cpu"]


@contextmanager
def mounted(folder, options):
    """A tmpfs while the context lasts; skips the test where mounting is not permitted."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def train_words(tmp_path, outputs):
    write_directory(tmp_path)
    place = [f"output_root={outputs}", "experiment_name=run", f"pytorch_data_dir={tmp_path}", "dir_dataset_name=mine"]
    return ["--config-name", "train_config_directory", *SMALL, *QUICK, *place]


def test_train__disk_full_at_the_first_checkpoint(tmp_path):
    """In a process of its own: whatever clean-up Python does at its end must not add a traceback."""
    with mounted(tmp_path / "full", "size=100k") as full:
        words = ["src_EAGLE/train_segmentation_eigen.py", *train_words(tmp_path, full)]
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        last = done.stderr.replace("\r", "\n").strip().splitlines()[-1]
        assert re.match(rf"error: {full}/\S+: No space left on device; make room", last)


def test_train__disk_that_cannot_be_written(tmp_path, monkeypatch):
    with mounted(tmp_path / "locked", "size=100k,ro") as locked:
        monkeypatch.setattr(sys, "argv", ["command.py", *train_words(tmp_path, locked)])
        with pytest.raises(SystemExit) as caught:
            run_command(TrainConfig, train_segmentation)
        assert caught.value.code == f"error: {locked}/run: Read-only file system; choose a writable folder"


def test_written_atomically__full_disk_names_the_file_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, written_atomically(tmp_path / "x.json"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def raising(error):
    def command(_cfg):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "No space left on device; make room and run the command again"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied; choose a writable folder"),
        (OSError(28, "full", "/tmp/part", None, "/runs/best.ckpt"), "/runs/best.ckpt: full; make room"),
        (OSError(5, "Input/output error", "/x"), "/x: Input/output error"),
        (OSError("Caught OSError in worker.\nTraceback:\n  line\nOSError: [Errno 5] broken"), "[Errno 5] broken"),
    ],
)
def test_run_command__errors_of_the_machine_are_one_line(monkeypatch, error, line):
    monkeypatch.setattr(sys, "argv", ["command.py"])
    with pytest.raises(SystemExit) as caught:
        run_command(DatasetConfig, raising(error))
    assert str(caught.value.code).startswith(f"error: {line}")
    assert "\n" not in str(caught.value.code)
