"""Run the sections of the benchmark chosen by its configuration; write the table to the terminal and to files."""

import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from eagle.config.validation import validated
from eagle.console import text_table
from eagle.errors import ConfigError, unknown_name_message
from eagle.files import write_text_atomically
from eagle.processes import usable_cores
from eagle_benchmarks import BenchmarkConfig
from eagle_benchmarks.comparisons import (
    COMPARISONS,
    Case,
    Comparison,
    chosen_device,
    crf,
    default_batch_size,
    evaluation,
    make_case,
)
from eagle_benchmarks.measure import (
    alternating_times,
    copy_rate,
    crf_bytes,
    in_a_process,
    loader_throughput,
    peak_memory,
    step_floor,
)

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


GRID_SIDES = (14, 28, 40, 56)
BATCH_FACTORS = (0.25, 0.5, 1, 2)
# Most patches for the released side: its full eigendecomposition of larger grids takes minutes.
RELEASED_PATCHES = {"cpu": 28**2, "cuda": 40**2}
SCALING_BATCH = 2
EVALUATION_BATCH = {"cpu": 2, "cuda": 16}
GIGA = 1e9

MAKERS: dict[str, Callable[[Case], Comparison]] = COMPARISONS | {"crf": crf, "evaluation": evaluation}


def run(cfg: Any) -> Report:
    """Run the chosen sections, print each row as soon as it is measured, and write the report.

    Raises:
        ConfigError: a section is unknown, or the device is missing.
        EagleError: the released computation and ours differ.
    """
    if chosen_device(cfg).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: this machine has no CUDA device; use cpu or auto")
    report = Report()
    for name in _chosen(cfg):
        SECTIONS[name](cfg, report)
    report.write(Path(cfg.out))
    return report


def _compare(cfg: Any, report: Report, section: str, batch_size: int, res: int, name: str, released: bool) -> None:
    """Check that both sides agree, time them in turn, and measure the memory of each."""
    case = make_case(cfg, batch_size, res)
    comparison = MAKERS[section](case)
    sides = _sides(comparison, released and cfg.published)
    try:
        if "released" in sides:
            comparison.check()
        times = alternating_times(sides, cfg.repeats, case.device)
    finally:
        comparison.close()
    memory = {side: _memory(cfg, case, section, side, sides[side]) for side in sides}
    median = {side: statistics.median(values) for side, values in times.items()}
    row = Row(name, median.get("released"), median["ours"], memory.get("released"), memory["ours"], times)
    report.rows.append(row)
    print(Report([row]).text().splitlines()[2], flush=True)


def _sides(comparison: Comparison, released: bool) -> dict[str, Callable[[], Any]]:
    sides = {"ours": comparison.ours}
    return {"released": comparison.released} | sides if released and comparison.released else sides


def _memory(cfg: Any, case: Case, section: str, side: str, run_side: Callable[[], Any]) -> int:
    if case.device.type == "cuda":
        return peak_memory(run_side, case.device)
    n_images, _, res, _ = case.batch["img"].shape
    return int(in_a_process(_memory_in_process, dict(cfg), section, side, n_images, res, torch.get_num_threads()))


def _memory_in_process(values: dict[str, Any], section: str, side: str, n_images: int, res: int, threads: int) -> int:
    torch.set_num_threads(threads)
    case = make_case(validated(BenchmarkConfig, values), n_images, res)
    comparison = MAKERS[section](case)
    try:
        return peak_memory(getattr(comparison, side), case.device)
    finally:
        comparison.close()


def _part(section: str) -> Callable[[Any, Report], None]:
    def measure(cfg: Any, report: Report) -> None:
        size = default_batch_size(cfg)
        _compare(cfg, report, section, size, cfg.res, f"{section}, {cfg.res} pixels, batch {size}", True)

    return measure


def _of_evaluation(section: str, name: str) -> Callable[[Any, Report], None]:
    def measure(cfg: Any, report: Report) -> None:
        size = EVALUATION_BATCH[chosen_device(cfg).type]
        _compare(cfg, report, section, size, cfg.eval_res, f"{name}, {cfg.eval_res} pixels, {size} images", True)

    return measure


def _scaling(cfg: Any, report: Report) -> None:
    patch_size, device = make_case(cfg, 2, cfg.dino_patch_size).segmenter.net.model.patch_size, chosen_device(cfg)
    for side in GRID_SIDES:
        released = side**2 <= RELEASED_PATCHES[device.type]
        for section in ("eigen", "step"):
            name = f"{section}, N = {side}², batch {SCALING_BATCH}"
            _compare(cfg, report, section, SCALING_BATCH, side * patch_size, name, released)
    for factor in BATCH_FACTORS:
        size = max(2, int(default_batch_size(cfg) * factor))
        _compare(cfg, report, "step", size, cfg.res, f"step, {cfg.res} pixels, batch {size}", False)


def _data(cfg: Any, report: Report) -> None:
    rate = loader_throughput(cfg)
    report.notes.append(f"data loading: {rate:.0f} images per second with {cfg.num_workers} processes")
    print(report.notes[-1], flush=True)


def _floor(cfg: Any, report: Report) -> None:
    case = make_case(cfg)
    for dtype in (torch.float32, torch.bfloat16):
        floor = step_floor(case, dtype)
        report.notes.append(
            f"floor of the step, batch {len(case.batch['img'])}, {str(dtype).removeprefix('torch.')}: "
            f"{floor.flops / GIGA:.0f} GFLOP at {floor.rate / GIGA:.0f} GFLOP/s = {floor.seconds:.4f} s"
        )
        print(report.notes[-1], flush=True)
    if case.device.type == "cpu":
        _crf_floor(cfg, report)


def _crf_floor(cfg: Any, report: Report) -> None:
    size = EVALUATION_BATCH["cpu"]
    case = make_case(cfg, size, cfg.eval_res)
    n_bytes, rate = crf_bytes(case), copy_rate()
    report.notes.append(
        f"floor of the CRF, {size} images, tables in memory: {n_bytes / GIGA:.1f} GB at {rate / GIGA:.0f} GB/s "
        f"= {n_bytes / rate:.4f} s"
    )
    print(report.notes[-1], flush=True)


def _chosen(cfg: Any) -> list[str]:
    if list(cfg.sections) == ["all"]:
        return list(SECTIONS)
    for name in cfg.sections:
        if name not in SECTIONS:
            raise ConfigError(unknown_name_message("section", name, SECTIONS))
    return list(cfg.sections)


SECTIONS: dict[str, Callable[[Any, Report], None]] = {
    "data": _data,
    **{name: _part(name) for name in COMPARISONS},
    "crf": _of_evaluation("crf", "CRF of both maps"),
    "evaluation": _of_evaluation("evaluation", "evaluation with CRF"),
    "scaling": _scaling,
    "floor": _floor,
}
