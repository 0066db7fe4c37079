"""Help and mistakes are answered before torch is imported, which takes seconds."""

import json
import subprocess
import sys

from conftest import ROOT

COMMANDS = sorted([*(ROOT / "src_EAGLE").glob("*.py"), *(ROOT / "scripts").glob("*.py")])
HEAVY = (
    "torch", "pytorch_lightning", "torchmetrics", "wandb", "matplotlib", "timm", "sklearn", "onnx", "numba", "gradio"
)  # fmt: skip
MISSING_FILES = [
    ("train_segmentation_eigen", "pytorch_data_dir=nowhere", "nowhere does not exist"),
    ("train_segmentation_eigen", "dataset_name=citiscapes pytorch_data_dir=.", "did you mean 'cityscapes'?"),
    ("eval_segmentation", "model_paths=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
    ("segment_images", "checkpoint=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
    ("check_data", "dir_dataset_name=nowhere pytorch_data_dir=missing", "bad files or splits: 2"),
    ("crop_datasets", "pytorch_data_dir=missing", "missing does not exist"),
]
# All command lines in one process: the heavy packages that the first of them imports are seen after it.
PROBE = f"""
import json, runpy, sys
sys.path[:0] = [{str(ROOT / "src_EAGLE")!r}, {str(ROOT / "scripts")!r}]
for script, line in json.loads(sys.argv[1]):
    sys.argv = [script, *line.split()]
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stopped:
        status = stopped.code
    print("ENDED", status, [name for name in {HEAVY} if name in sys.modules])
"""


def test_help_version_and_mistakes__need_no_torch():
    lines, expected = [], []
    for command in COMMANDS:
        lines += [(str(command), words) for words in ("--help", "--version", "sed=1")]
        expected += ["0 ", "0 ", "error: unknown key 'sed'"]
    for script, words, message in MISSING_FILES:
        lines.append((str(ROOT / "src_EAGLE" / f"{script}.py"), words))
        expected.append(message)
    arguments = [sys.executable, "-c", PROBE, json.dumps(lines)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    found = [line.removeprefix("ENDED ") for line in done.stdout.splitlines() if line.startswith("ENDED ")]
    for line, message, outcome in zip(lines, expected, found, strict=True):
        assert message in outcome, line
        assert outcome.endswith(" []"), line
