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
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
sys.path[:0] = [{str(ROOT / "src_EAGLE")!r}, {str(ROOT / "scripts")!r}]
status = 0
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as stopped:
    status = stopped.code
print(status, [name for name in {HEAVY} if name in sys.modules])
"""


def outcome(command, *words):
    """Exit status or message, and the heavy packages that were imported."""
    arguments = [sys.executable, "-c", PROBE, str(command), *words]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_help_version_and_misspelt_key__need_no_torch(command):
    assert outcome(command, "--help") == "0 []"
    assert outcome(command, "--version") == "0 []"
    said = outcome(command, "sed=1")
    assert said.startswith("error: unknown key 'sed'")
    assert said.endswith(" []")


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train_segmentation_eigen", ["pytorch_data_dir=nowhere"], "nowhere does not exist"),
        ("train_segmentation_eigen", ["dataset_name=citiscapes", "pytorch_data_dir=."], "did you mean 'cityscapes'?"),
        ("eval_segmentation", ["model_paths=nowhere.ckpt"], "model_paths: nowhere.ckpt: no such checkpoint"),
        ("segment_images", ["checkpoint=nowhere.ckpt"], "checkpoint: nowhere.ckpt: no such checkpoint"),
        ("visualize_eigen", ["checkpoint=nowhere.ckpt"], "checkpoint: nowhere.ckpt: no such checkpoint"),
        ("demo", ["checkpoint=nowhere.ckpt"], "checkpoint: nowhere.ckpt: no such checkpoint"),
        ("check_data", ["dir_dataset_name=nowhere", "pytorch_data_dir=missing"], "bad files or splits: 2"),
        ("crop_datasets", ["pytorch_data_dir=missing"], "missing does not exist"),
    ],
)
def test_missing_file__needs_no_torch(script, words, message):
    said = outcome(ROOT / "src_EAGLE" / f"{script}.py", *words)
    assert message in said
    assert said.endswith(" []")
