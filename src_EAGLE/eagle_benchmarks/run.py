"""Run the chosen parts of the benchmark; write a table of times and peak memory."""

import ctypes
import json
import multiprocessing
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from eagle.config.validation import refuse_unknown
from eagle.distributed import computes_bfloat16
from eagle.errors import ConfigError
from eagle.files import write_text_atomically
from eagle.processes import follow_parent, usable_cores
from eagle_benchmarks.comparisons import ON_EVALUATION_IMAGES, PARTS, check, make_case, sides

HEADER = ("", "released s", "ours s", "ratio", "of peak", "released MB", "ours MB", "ratio")
# Peak: the fastest of so many products of square float32 matrices of this side.
TRIALS, MATRIX_SIDE = 5, {"cpu": 2048, "cuda": 8192}
BATCH = {"cpu": 8, "cuda": 32}
EVALUATION_BATCH = {"cpu": 2, "cuda": 16}


def run(cfg: Any) -> None:
    """Run the chosen parts, print each row at once, append to ``benchmark.jsonl`` and write ``benchmark.md``.

    The column "of peak" is the rate of our matrix products as a share of the machine's fastest one.

    Raises:
        ConfigError: a part is unknown, or the device is missing.
        EagleError: the released computation and ours differ.
    """
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: this machine has no CUDA device; use cpu or auto")
    chosen = list(PARTS) if list(cfg.sections) == ["all"] else list(cfg.sections)
    refuse_unknown("section", chosen, PARTS)
    peak, rows = fastest_product(device), []
    table = [line(HEADER), line(["---"] + ["---:"] * (len(HEADER) - 1))]
    print("\n".join(table))
    for part in chosen:
        rows.append(compare(part, cfg, device, peak))
        table.append(line(cells(rows[-1])))
        print(table[-1], flush=True)
    command, folder, facts = shlex.join(["python", *sys.argv]), Path(cfg.out), machine(device, peak)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "benchmark.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"command": command, "machine": facts, "rows": rows}) + "\n")
    listed = [f"- {name}: {value}" for name, value in facts.items()]
    write_text_atomically(folder / "benchmark.md", "\n".join([f"`{command}`", "", *listed, "", *table, ""]))


def machine(device: torch.device, peak: float) -> dict[str, Any]:
    """What decides the speed of this machine, and how busy it is."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "instruction sets": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 instructions": "yes" if computes_bfloat16(device.type) else "no",
        "fastest float32 product": f"{peak / 1e9:.0f} GFLOP/s",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "cores": usable_cores(),
        "torch threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "load average": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def line(texts: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(texts)} |"


def cells(row: dict[str, Any]) -> list[str]:
    """The texts of one line of the table."""
    texts = [row["name"]]
    for quantity, unit, digits in (("s", 1, 4), ("bytes", 1e6, 0)):
        released, ours = row[f"released {quantity}"], row[f"ours {quantity}"]
        texts += ["" if side is None else f"{side / unit:.{digits}f}" for side in (released, ours)]
        texts.append(f"{released / ours:.2f}×" if released is not None and ours else "")
        if quantity == "s":
            texts.append(f"{row['of peak']:.0%}")
    return texts


def fastest_product(device: torch.device) -> float:
    """Floating-point operations per second of the fastest of several products of large float32 matrices."""
    side = MATRIX_SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device)
    return 2 * side**3 / min(alternating_times({"": lambda: a @ b}, TRIALS, device)[""])


def compare(part: str, cfg: Any, device: torch.device, peak: float) -> dict[str, Any]:
    """Check that both sides of a part agree, time them in turn, and measure the peak memory of each."""
    if part in ON_EVALUATION_IMAGES:
        size, res = EVALUATION_BATCH[device.type], cfg.eval_res
    else:
        size, res = cfg.batch_size or BATCH[device.type], cfg.res
    case = make_case(cfg.model_type, device, size, res)
    check(part, case)
    runs = sides(part, case)
    times = alternating_times(runs, cfg.repeats, device)
    with FlopCounterMode(display=False) as counted:
        runs["ours"]()
    if device.type == "cuda":
        memory = {side: peak_memory(run, device) for side, run in runs.items()}
    else:
        arguments = (cfg.model_type, size, res, torch.get_num_threads(), part)
        memory = {side: in_a_process(_cpu_memory, *arguments, side) for side in runs}
    row = {"name": f"{part}, {res} pixels, batch {size}", "times": times, "ours flops": counted.get_total_flops()}
    for side in ("released", "ours"):
        row[f"{side} s"] = statistics.median(times[side]) if side in times else None
        row[f"{side} bytes"] = memory.get(side)
    return row | {"of peak": row["ours flops"] / row["ours s"] / peak}


def alternating_times(
    runs: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of ``repeats`` runs of each side, the device's work included, in turn after a warm-up run of each."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + repeats):
        for name, run in runs.items():
            wait()
            start = time.perf_counter()
            run()
            wait()
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def peak_memory(run: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that ``run`` adds to the level before it; None on a CPU without Linux's /proc.

    On the CPU, processes that the run starts count too, each with its own peak. Call it in a fresh process, where no
    earlier run left freed memory.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    with suppress(OSError, AttributeError):  # glibc returns freed memory, so that reusing it counts
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _peak_of_process()
    run()
    return _peak_of_process() - before


def _peak_of_process() -> int:
    pids = ["self", *(child.pid for child in psutil.Process().children(recursive=True))]
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return 1024 * sum(int(text.partition("VmHWM:")[2].split()[0]) for text in texts)


def _cpu_memory(model_type: str, batch_size: int, res: int, threads: int, part: str, side: str) -> int | None:
    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    return peak_memory(sides(part, make_case(model_type, cpu, batch_size, res))[side], cpu)


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``function`` in a fresh process and return its result."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=follow_parent) as pool:
        return pool.submit(function, *arguments).result()
