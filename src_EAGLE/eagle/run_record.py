"""What a run was made with, for whoever wants the same numbers again."""

import json
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from eagle.files import write_text_atomically

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "numpy", "scipy", "scikit-learn", "pillow",
    "hydra-core", "omegaconf", "safetensors", "eagle-segmentation",
)  # fmt: skip
FILE_NAME = "run.json"


def record_run(run_dir: Path, seed: int, resumed_from: str | None) -> None:
    """Add an entry to ``run.json``: command line, code, versions, devices, seed and time; a resumed run adds one more.

    Args:
        run_dir: the run's folder.
        seed: of the run.
        resumed_from: the checkpoint that it goes on from.
    """
    path = run_dir / FILE_NAME
    entry = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "resumed_from": resumed_from,
        "seed": seed,
        "git": git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "machine": platform.node(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or [platform.machine()],
    }
    write_text_atomically(path, json.dumps([*_earlier(path), entry], indent=2) + "\n")


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that ``folder`` is in, and whether it has uncommitted changes; None outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _earlier(path: Path) -> list[Any]:
    """The entries so far; a file that cannot be read is begun anew."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries if isinstance(entries, list) else []
