"""What commands print: tables, scores and shell commands."""

import shlex
import sys
from collections.abc import Sequence
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
