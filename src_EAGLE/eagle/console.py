"""What commands print: tables, and command lines for people to type."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A heading, a rule and rows with aligned columns: the first to the left, the others to the right if numbers."""
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
    """A line for a shell in any folder: this Python, the script's whole path, and the arguments, quoted."""
    return shlex.join([sys.executable, str(script.resolve()), *arguments])
