"""What a run was made with, code included, for whoever wants the same numbers again."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from eagle.files import write_text_atomically

DISTRIBUTION = "eagle-segmentation"

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "numpy", "scipy", "scikit-learn", "pillow",
    "hydra-core", "omegaconf", "safetensors", DISTRIBUTION,
)  # fmt: skip
FILE_NAME = "run.json"
_ROOT = Path(__file__).resolve().parents[3]
_SHOWN_DIGITS = 7


def record_run(run_dir: Path, seed: int, resumed_from: str | None) -> None:
    """Add an entry to ``run.json``: command line, code, versions, devices, seed and time; a resumed run adds one more.

    Args:
        run_dir: the run's folder.
        seed: of the run.
        resumed_from: the checkpoint that it goes on from.
    """
    path = run_dir / FILE_NAME
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
    write_text_atomically(path, json.dumps([*_earlier(path), entry], indent=2) + "\n")


def code_version() -> str | None:
    """Version and last commit, e.g. "0.1.0, commit ca3b3d8 and changes", as far as known; None where neither is."""
    parts = [found for found in [package_version(DISTRIBUTION)] if found]
    state = git_state()
    if state:
        parts.append(f"commit {state['commit'][:_SHOWN_DIGITS]}{' and changes' if state['changed'] else ''}")
    return ", ".join(parts) or None


def git_state() -> dict[str, Any] | None:
    """``commit`` of this checkout and whether it has uncommitted changes, ``changed``; None for an installed copy."""
    if not (_ROOT / ".git").exists():
        return None
    try:
        return {"commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def package_version(package: str) -> str | None:
    """The installed version; None where it is not installed."""
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


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  fixed words, no shell
    return done.stdout.strip()
