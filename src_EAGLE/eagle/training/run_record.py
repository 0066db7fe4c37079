"""Describe a run in its folder: ``run.json`` says how it was made, ``README.md`` what its model and its files are."""

import csv
import json
import platform
import re
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from eagle.checkpoints import model_card
from eagle.config.words import quoted
from eagle.console import DISTRIBUTION, shell_command
from eagle.files import write_text_atomically

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "numpy", "scipy", "scikit-learn", "pillow",
    "hydra-core", "omegaconf", "safetensors", DISTRIBUTION,
)  # fmt: skip
_ROOT = Path(__file__).resolve().parents[3]
_SHOWN_DIGITS = 7
# Scores of a validation as the README shows them, by logged name.
VALIDATED = {
    "cluster mIoU": "test/cluster/mIoU",
    "accuracy": "test/cluster/Accuracy",
    "linear mIoU": "test/linear/mIoU",
    "label-free loss": "val/loss",
}

_README = """\
# Training run {name}

## Model card

{card}

## Files

| File | Content |
| --- | --- |
| `best.ckpt` | the segmenter of the best validation: highest cluster mIoU, or lowest `val/loss` without labels |
| `last.ckpt` | the latest state of the run, with optimiser and random states |
| `last_tree.ckpt` | with `fit_clusters=tree`: the segmenter with a tree of clusters, for every command |
| `config.yml` | every key of the run; `--config-name` takes it |
| `run.json` | command, commit, package versions and seed, one entry per start |
| `metrics.csv` | every logged loss and score, by the number of steps done |
| `pictures/` | after each validation: images beside both probes' maps, the confusion, and the classes' frequencies |
| `best_eval.json`, `best_report.html` | after evaluating `best.ckpt`: scores and names of the clusters; pictures |
| `curves.png` | after `plot_run.py` |

## What to do next

```bash
# score the segmenter, which also names its clusters if the images have labels
{evaluate}
# masks of your own images: put files or folders in place of IMAGES
{segment}
# a tree of clusters that can be cut at any number: last_tree.ckpt
{fit}
# eigenvectors, EiCue and clusters of validation images
{visualize}
# curves of losses and scores
{plot}
# continue the run, e.g. after an interruption or with a larger max_steps
{resume}
```
"""


def record_run(run_dir: Path, seed: int, resumed_from: str | None) -> None:
    """Append command line, code version, packages, devices, seed and time to ``run.json``; resuming adds an entry.

    Args:
        run_dir: the run's folder.
        seed: the run's seed.
        resumed_from: the checkpoint that a resumed run starts from.
    """
    path = run_dir / "run.json"
    earlier: list[Any] = []
    with suppress(OSError, ValueError):  # missing or damaged
        earlier = json.loads(path.read_text(encoding="utf-8"))
    entry = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "resumed_from": resumed_from,
        "seed": seed,
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := package_version(name))},
        "machine": platform.node(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or [platform.machine()],
    }
    write_text_atomically(path, json.dumps([*earlier, entry], indent=2) + "\n")


def best_validation(run_dir: Path, monitor: str, mode: str) -> str | None:
    """Steps and scores of the best validation in ``metrics.csv``; None before the first.

    Args:
        run_dir: the run's folder.
        monitor: the score that selects it.
        mode: "max" or "min".
    """
    try:
        with (run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get(monitor)]
    except FileNotFoundError:
        return None
    if not rows:
        return None
    best = (max if mode == "max" else min)(rows, key=lambda row: float(row[monitor]))
    shown = [f"{name} {float(best[key]):.2f}" for name, key in VALIDATED.items() if best.get(key)]
    return f"after {best['step']} steps: {', '.join(shown)}"


def write_run_readme(
    run_dir: Path, resume: str, data: str, cfg: Any, best: str | None, checkpoint: str = "best.ckpt"
) -> str:
    """Write ``README.md``.

    Args:
        run_dir: the run's folder.
        resume: the shell command that resumes the run.
        data: what the model was trained on.
        cfg: a validated TrainConfig.
        best: see ``best_validation``.
        checkpoint: name of the file to use.

    Returns:
        The shell command that evaluates the checkpoint.
    """
    scripts, folder = Path(__file__).parents[2], run_dir.resolve()
    evaluate = shell_command(scripts / "eval_segmentation.py", str(folder / checkpoint))
    chosen = f"checkpoint={_readable(folder / checkpoint)}"
    text = _README.format(
        name=folder.name,
        card=model_card(cfg, data, f"**Best validation**: {best or 'none yet'}"),
        evaluate=evaluate,
        segment=shell_command(scripts / "segment_images.py", "IMAGES", chosen),
        fit=shell_command(scripts / "fit_clusters.py", f"checkpoint={_readable(folder / 'last.ckpt')}"),
        visualize=shell_command(scripts / "visualize_eigen.py", chosen),
        plot=shell_command(scripts / "plot_run.py", str(folder)),
        resume=resume,
    )
    write_text_atomically(run_dir / "README.md", text)
    return evaluate


def _readable(path: Path) -> str:
    """A path for Hydra's grammar, where = , ( [ and others have a meaning, as in the names of a sweep's jobs."""
    return str(path) if re.fullmatch(r"[\w./+-]+", str(path)) else quoted(str(path))


def code_version() -> str | None:
    """Return version and commit, e.g. "0.1.0, commit ca3b3d8 and changes"; None if both are unknown."""
    parts = [found for found in [package_version(DISTRIBUTION)] if found]
    state = git_state()
    if state:
        parts.append(f"commit {state['commit'][:_SHOWN_DIGITS]}{' and changes' if state['changed'] else ''}")
    return ", ".join(parts) or None


def git_state() -> dict[str, Any] | None:
    """Return ``commit`` and ``changed`` (uncommitted changes?) of this checkout; None for an installed copy."""
    if not (_ROOT / ".git").exists():
        return None
    try:
        return {"commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def package_version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  fixed words, no shell
    return done.stdout.strip()
