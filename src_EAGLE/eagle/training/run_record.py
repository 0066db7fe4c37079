"""Describe a run in its folder: ``run.json`` says how it was made, ``README.md`` what comes next."""

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
from eagle.training.resume import resume_command

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "numpy", "scipy", "scikit-learn", "pillow",
    "hydra-core", "omegaconf", "safetensors",
)  # fmt: skip
_SCRIPTS = Path(__file__).resolve().parents[2]

_README = """\
# Training run {name}

{card}

`docs/training.md` describes the files of this folder. What to do next:

```bash
# score the segmenter, which also names its clusters if the images have labels
{evaluate}
# masks of your own images: put files or folders in place of IMAGES
{segment}
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
        "code": code_version(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": platform.node(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or [platform.machine()],
    }
    write_text_atomically(path, json.dumps([*earlier, entry], indent=2) + "\n")


def write_run_readme(run_dir: Path, checkpoint: str, data: str, cfg: Any) -> None:
    """Write ``README.md``.

    Args:
        run_dir: the run's folder.
        checkpoint: name of the file to use.
        data: what the model is trained on.
        cfg: a validated TrainConfig.
    """
    chosen = run_dir.resolve() / checkpoint
    text = _README.format(
        name=chosen.parent.name,
        card=model_card(cfg, data, "**Scores**: in `metrics.csv` and, after an evaluation, beside the checkpoint"),
        evaluate=evaluation_command(chosen),
        segment=shell_command(_SCRIPTS / "segment_images.py", "IMAGES", f"checkpoint={_readable(chosen)}"),
        resume=resume_command(run_dir),
    )
    write_text_atomically(run_dir / "README.md", text)


def evaluation_command(checkpoint: Path) -> str:
    """Return the shell command that scores a checkpoint."""
    return shell_command(_SCRIPTS / "eval_segmentation.py", str(checkpoint.resolve()))


def _readable(path: Path) -> str:
    """A path for Hydra's grammar, where = , ( [ and others have a meaning, as in the names of a sweep's jobs."""
    return str(path) if re.fullmatch(r"[\w./+-]+", str(path)) else quoted(str(path))


def code_version() -> str | None:
    """Return version and commit, e.g. "0.1.0, commit ca3b3d8f1c52-dirty" with changes; None if both are unknown."""
    found = []
    with suppress(PackageNotFoundError):
        found.append(version(DISTRIBUTION))
    # An installed copy may lie in another repository.
    if (_SCRIPTS.parent / ".git").exists():
        words = ["git", "-C", str(_SCRIPTS), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  fixed words
            found.append(f"commit {done.stdout.strip()}")
    return ", ".join(found) or None
