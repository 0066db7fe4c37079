"""Help and mistakes are answered before torch is imported, which takes seconds."""

import subprocess
import sys

import pytest

from conftest import ROOT

COMMANDS = sorted([*(ROOT / "src_EAGLE").glob("*.py"), *(ROOT / "scripts").glob("*.py")])
HEAVY = (
    "torch",
    "pytorch_lightning",
    "torchmetrics",
    "wandb",
    "matplotlib",
    "timm",
    "sklearn",
    "onnx",
    "numba",
    "gradio",
)
PROBE = f"""
import runpy, sys
script, *lines = sys.argv[1:]
sys.path[:0] = [{str(ROOT / "src_EAGLE")!r}, {str(ROOT / "scripts")!r}]
for line in lines:
    sys.argv = [script, *line.split()]
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stopped:
        status = stopped.code
    print("ENDED", status, [name for name in {HEAVY} if name in sys.modules])
"""


def outcomes(command, *lines):
    """Exit status or message after each command line, and the heavy packages that are imported by then."""
    arguments = [sys.executable, "-c", PROBE, str(command), *lines]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    return [line.removeprefix("ENDED ") for line in done.stdout.splitlines() if line.startswith("ENDED ")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_help_version_and_misspelt_key__need_no_torch(command):
    *fine, mistake = outcomes(command, "--help", "--version", "sed=1")
    assert fine == ["0 []", "0 []"]
    assert mistake.startswith("error: unknown key 'sed'")
    assert mistake.endswith(" []")


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train_segmentation_eigen", "pytorch_data_dir=nowhere", "nowhere does not exist"),
        ("train_segmentation_eigen", "dataset_name=citiscapes pytorch_data_dir=.", "did you mean 'cityscapes'?"),
        ("eval_segmentation", "model_paths=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
        ("segment_images", "checkpoint=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
        ("check_data", "dir_dataset_name=nowhere pytorch_data_dir=missing", "bad files or splits: 2"),
        ("crop_datasets", "pytorch_data_dir=missing", "missing does not exist"),
    ],
)
def test_missing_file__needs_no_torch(script, words, message):
    (said,) = outcomes(ROOT / "src_EAGLE" / f"{script}.py", words)
    assert message in said
    assert said.endswith(" []")
