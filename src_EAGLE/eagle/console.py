"""What commands print: tables, shell commands, and the version of the code."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "eagle-segmentation"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Align rows below a header and a rule: first column left, the others right if they hold numbers."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(w) if numbers and i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, ["-" * w for w in widths], *rows)
    ]
    return "\n".join(lines)


def shell_command(script: Path, *arguments: str) -> str:
    """Return a quoted command that runs ``script`` with this Python interpreter from any folder."""
    return shlex.join([sys.executable, str(script.resolve()), *arguments])


def code_version() -> str | None:
    """Return version and commit, e.g. "0.1.0, commit ca3b3d8f1c52-dirty" with changes; None if both are unknown."""
    found, repository = [], Path(__file__).resolve().parents[2]
    with suppress(PackageNotFoundError):
        found.append(version(DISTRIBUTION))
    # An installed copy may lie in another repository.
    if (repository / ".git").exists():
        words = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  fixed words
            found.append(f"commit {done.stdout.strip()}")
    return ", ".join(found) or None
