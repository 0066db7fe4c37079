"""Record how a run was made (command, code version, packages, machine), so that it can be reproduced."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from eagle.citation import DISTRIBUTION
from eagle.files import write_text_atomically

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "numpy", "scipy", "scikit-learn", "pillow",
    "hydra-core", "omegaconf", "safetensors", DISTRIBUTION,
)  # fmt: skip
FILE_NAME = "run.json"
_ROOT = Path(__file__).resolve().parents[3]
_SHOWN_DIGITS = 7


def record_run(run_dir: Path, seed: int, resumed_from: str | None) -> None:
    """Append command line, code version, packages, devices, seed and time to ``run.json``; resuming adds an entry.

    Args:
        run_dir: the run's folder.
        seed: the run's seed.
        resumed_from: the checkpoint that a resumed run starts from.
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
    write_text_atomically(path, json.dumps([*_earlier_entries(path), entry], indent=2) + "\n")


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


def _earlier_entries(path: Path) -> list[Any]:
    """Return the entries of earlier starts; an unreadable file counts as empty."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries if isinstance(entries, list) else []


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  fixed words, no shell
    return done.stdout.strip()
