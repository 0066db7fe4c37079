"""Full disks end every command that writes with one line that names the file."""

import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from conftest import ROOT, run_values
from eagle.config.application import run_command
from eagle.config.schema import DatasetConfig
from eagle.files import nameless_errors_name, written_atomically
from miniatures import write_halves

BACKBONE = "{embed_dim: 48, depth: 4, num_heads: 3, img_size: 112}"


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


@pytest.mark.slow
def test_train__disk_full_at_the_first_checkpoint(tmp_path):
    """In a process of its own: whatever clean-up Python does at its end must not add a traceback."""
    write_halves(tmp_path / "data" / "halves")
    with mounted(tmp_path / "outputs", "size=100k") as full:
        values = run_values(tmp_path) | {"backbone_kwargs": BACKBONE, "model_type": "vit_small"}
        words = ["train_segmentation_eigen.py", "--config-name", "train_config_directory"]
        words += [f"{name}={value}" for name, value in values.items()]
        done = subprocess.run([sys.executable, *words], cwd=ROOT / "src_EAGLE", capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert re.match(rf"error: {full}/\S+: No space left on device$", last)


def test_written_atomically__full_disk_names_the_file_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, written_atomically(tmp_path / "x.json"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_nameless_errors_name__keeps_a_name_and_gives_one(tmp_path):
    """Lightning appends to metrics.csv, and a failed write names no file."""
    for error, name in ((OSError(28, "No space left"), str(tmp_path)), (OSError(28, "No space left", "x"), "x")):
        with pytest.raises(OSError, match="No space left") as caught, nameless_errors_name(tmp_path):
            raise error
        assert caught.value.filename == name


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "full", "/tmp/part", None, "/runs/best.ckpt"), "/runs/best.ckpt: full"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (OSError("Caught OSError in worker.\nTraceback:\n  line\nOSError: [Errno 5] broken"), "[Errno 5] broken"),
    ],
)
def test_run_command__errors_of_the_machine_are_one_line(monkeypatch, error, line):
    monkeypatch.setattr(sys, "argv", ["command.py"])

    def command(_cfg):
        raise error

    command.__module__ = "eagle.commands.runs"  # Hydra wants a module of a package
    with pytest.raises(SystemExit) as caught:
        run_command(DatasetConfig, command)
    assert caught.value.code == f"error: {line}"
