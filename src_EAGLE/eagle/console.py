"""Format tables, scores and shell commands for printing."""

import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path


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


def mean_and_deviation(values: Sequence[float]) -> str:
    """``mean ± sample standard deviation``; only the mean for a single value."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def shell_command(script: Path, *arguments: str) -> str:
    """Return a quoted command that runs ``script`` with this Python interpreter from any folder."""
    return shlex.join([sys.executable, str(script.resolve()), *arguments])
