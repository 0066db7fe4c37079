"""Which code a result was made with."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DISTRIBUTION = "eagle-segmentation"
_ROOT = Path(__file__).resolve().parents[2]
_SHOWN_DIGITS = 7


def code_version() -> str | None:
    """Version and last commit, e.g. "0.1.0, commit ca3b3d8", as far as they are known; None where neither is.

    Changes that are not committed do not show.
    """
    parts = []
    with suppress(PackageNotFoundError):
        parts.append(version(_DISTRIBUTION))
    commit = _commit()
    if commit:
        parts.append(f"commit {commit[:_SHOWN_DIGITS]}")
    return ", ".join(parts) or None


def _commit() -> str | None:
    """What a checkout's HEAD points to; none for an installed copy. Read from git's files: no program is started."""
    git = _ROOT / ".git"
    try:
        if git.is_file():  # of a worktree
            git = _ROOT / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        return _resolved(git, head.removeprefix("ref: ")) if head.startswith("ref: ") else head
    except (OSError, UnicodeDecodeError):
        return None


def _resolved(git: Path, ref: str) -> str | None:
    common = git / "commondir"
    shared = git / common.read_text(encoding="utf-8").strip() if common.is_file() else git
    if (shared / ref).is_file():
        return (shared / ref).read_text(encoding="utf-8").strip()
    packed = (line.split() for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines())
    return next((words[0] for words in packed if words[1:] == [ref]), None)
