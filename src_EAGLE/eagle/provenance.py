"""Which code a result was made with."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DISTRIBUTION = "eagle-segmentation"
_ROOT = Path(__file__).resolve().parents[2]


def code_version() -> str | None:
    """Version and git commit, e.g. "0.1.0 (ca3b3d8, changed)", as far as they are known; None where neither is."""
    try:
        number: str | None = version(_DISTRIBUTION)
    except PackageNotFoundError:
        number = None
    commit = _commit()
    if number and commit:
        return f"{number} ({commit})"
    return number or commit


def _commit() -> str | None:
    """The commit of a checkout; none for an installed copy, which may lie in somebody else's repository."""
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--exclude=*", "--dirty=, changed"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
