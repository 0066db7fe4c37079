"""Write the benchmark's table to the terminal and to files."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from eagle.console import text_table
from eagle.files import write_text_atomically
from eagle.processes import usable_cores

HEADER = ("", "released s", "ours s", "ratio", "released MB", "ours MB", "ratio")
MEGABYTE = 1e6


@dataclass(frozen=True)
class Row:
    """One measurement; None for a side that was not measured.

    Attributes:
        name: the measured part and its size.
        released: median seconds.
        ours: median seconds.
        released_memory: peak bytes.
        ours_memory: peak bytes.
        times: seconds of every run, by side.
    """

    name: str
    released: float | None
    ours: float
    released_memory: int | None
    ours_memory: int | None
    times: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Report:
    """All measurements of one run of the benchmark."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The table and the notes, for the terminal."""
        return "\n".join([text_table(HEADER, [_cells(row) for row in self.rows]), "", *self.notes])

    def markdown(self) -> str:
        """The table and the notes for ``docs/performance.md``, with the machine and the command."""
        lines = [f"`{command()}`", "", *[f"- {name}: {value}" for name, value in machine().items()], ""]
        lines += [_markdown_row(HEADER), _markdown_row(["---"] + ["---:"] * (len(HEADER) - 1))]
        lines += [_markdown_row(_cells(row)) for row in self.rows]
        return "\n".join([*lines, "", *[f"- {note}" for note in self.notes], ""])

    def write(self, folder: Path) -> None:
        """Write ``benchmark.json`` and ``benchmark.md``."""
        rows = [asdict(row) for row in self.rows]
        content = {"command": command(), "machine": machine(), "rows": rows, "notes": self.notes}
        write_text_atomically(folder / "benchmark.json", json.dumps(content, indent=2) + "\n")
        write_text_atomically(folder / "benchmark.md", self.markdown())


def machine() -> dict[str, Any]:
    """Facts about the machine that times depend on."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": usable_cores(),
        "torch threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name()
    facts |= {"torch": torch.__version__, "Python": platform.python_version()}
    if hasattr(os, "getloadavg"):
        facts["load average"] = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return facts


def command() -> str:
    """The command line of this process."""
    return shlex.join(["python", *sys.argv])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        _number(row.released, 4),
        _number(row.ours, 4),
        _ratio(row.released, row.ours),
        _number(row.released_memory and row.released_memory / MEGABYTE, 0),
        _number(row.ours_memory and row.ours_memory / MEGABYTE, 0),
        _ratio(row.released_memory, row.ours_memory),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _ratio(released: float | None, ours: float | None) -> str:
    return "" if released is None or not ours else f"{released / ours:.2f}×"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
