"""Full or read-only disks end every command that writes with one line that names the file."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
from scripts import make_mosaics

import crop_datasets
from conftest import ROOT, TINY_VIT
from eagle.config.command_line import run_command
from eagle.config.schema import DatasetConfig, EvalConfig, TrainConfig
from eagle.files import nameless_errors_name, written_atomically
from eagle.training.run import train
from eval_segmentation import eval_segmentation
from miniatures import write_directory
from train_segmentation_eigen import train_segmentation

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


@pytest.fixture
def error_of(monkeypatch):
    """Runs a command as typed, in this process, and gives the one line it ends with."""

    def run(schema, command, default_config, *words):
        monkeypatch.setattr(sys, "argv", ["command.py", *words])
        with pytest.raises(SystemExit) as caught:
            run_command(schema, command, default_config)
        line = str(caught.value.code)
        assert line.startswith("error: ")
        assert "\n" not in line
        return line

    return run


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


def test_train__disk_full_at_the_first_logged_number(tmp_path, error_of):
    """Python's error does not say which file then."""
    with mounted(tmp_path / "full", "size=12k") as full:
        line = error_of(TrainConfig, train_segmentation, None, *train_words(tmp_path, full), "scalar_log_freq=1")
        assert line.startswith(f"error: {full}/run: No space left on device; make room")


def test_train__disk_that_cannot_be_written(tmp_path, error_of):
    with mounted(tmp_path / "locked", "size=100k,ro") as locked:
        line = error_of(TrainConfig, train_segmentation, None, *train_words(tmp_path, locked))
        assert line == f"error: {locked}/run: Read-only file system; choose a writable folder"


def test_train__output_root_is_a_file(tmp_path, error_of):
    place = tmp_path / "outputs"
    place.write_text("in the way")
    line = error_of(TrainConfig, train_segmentation, None, *train_words(tmp_path, place))
    assert line == f"error: {place}/run: Not a directory"


def test_evaluation__disk_full(tmp_path, error_of, make_config):
    write_directory(tmp_path)
    place = {"pytorch_data_dir": str(tmp_path), "dir_dataset_name": "mine", "output_root": str(tmp_path)}
    size = {"res": 32, "val_res": 32, "batch_size": 2, "max_steps": 1, "experiment_name": "run", "accelerator": "cpu"}
    checkpoint = train(make_config(**place, **size)) / "last.ckpt"
    with mounted(tmp_path / "full", "size=1m") as full:
        shutil.copy(checkpoint, full)
        with suppress(OSError):
            (full / "ballast").write_bytes(bytes(1_000_000))
        words = [f"model_paths={full / 'last.ckpt'}", "run_crf=false", "num_workers=0", "accelerator=cpu"]
        line = error_of(EvalConfig, eval_segmentation, None, *words)
        assert line.startswith(f"error: {full}/last_eval.json: No space left on device; make room")


def test_crops__disk_full(tmp_path, error_of):
    with mounted(tmp_path / "data", "size=100k") as data_dir:
        write_directory(data_dir)
        words = ["dataset_name=directory", "dir_dataset_name=mine", f"pytorch_data_dir={data_dir}", "num_processes=1"]
        line = error_of(crop_datasets.CropConfig, crop_datasets.crop_datasets, None, *words)
        assert re.match(rf"error: {data_dir}/cropped/\S+: .*No space left on device", line)
        assert not list(data_dir.glob("cropped/**/.[0-9]*")), "nothing half-written is left"


def test_mosaics__disk_full(tmp_path, error_of):
    with mounted(tmp_path / "data", "size=20k") as data_dir:
        words = [f"output_dir={data_dir / 'mosaics'}", "n_train=4", "n_val=1", "size=64"]
        line = error_of(make_mosaics.MosaicsConfig, make_mosaics.make_mosaics, None, *words)
        assert line.startswith(f"error: {data_dir}/mosaics: cannot be written (No space left on device)")


def test_written_atomically__full_disk_names_the_file_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, written_atomically(tmp_path / "x.json"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_written_atomically__a_librarys_words_are_kept(tmp_path):
    with pytest.raises(OSError, match=r"/x\.png: encoder error -2$"), written_atomically(tmp_path / "x.png"):
        raise OSError("encoder error -2")


def test_nameless_errors_name__keeps_a_name_that_is_there(tmp_path):
    for error, expected in ((OSError(28, "full"), tmp_path), (OSError(28, "full", "/other"), "/other")):
        with pytest.raises(OSError, match="full") as caught, nameless_errors_name(tmp_path):
            raise error
        assert caught.value.filename == str(expected)


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


@pytest.mark.parametrize("last_word", ["num_threads=1", "--help"])
def test_commands__a_reader_that_leaves_is_no_error(tmp_path, last_word):
    write_directory(tmp_path)
    read_end, write_end = os.pipe()
    os.close(read_end)
    words = ["src_EAGLE/check_data.py", f"pytorch_data_dir={tmp_path}", "dir_dataset_name=mine", last_word]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=buffered, stdout=write_end, stderr=subprocess.PIPE, text=True
    )
    os.close(write_end)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
