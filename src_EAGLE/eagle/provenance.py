"""Which code a result was made with."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DISTRIBUTION = "eagle-segmentation"
_ROOT = Path(__file__).resolve().parents[2]
_SHOWN_DIGITS = 7


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


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  fixed words, no shell
    return done.stdout.strip()
