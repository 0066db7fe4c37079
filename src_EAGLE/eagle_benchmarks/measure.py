"""Measure times of alternating runs and the peak memory of one run."""

import ctypes
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from eagle.processes import follow_parent

Run = Callable[[], Any]

_CLEAR_REFS, _RESET_PEAK = Path("/proc/self/clear_refs"), "5"
_STATUS = Path("/proc/self/status")
KILOBYTE = 1024


def alternating_times(sides: Mapping[str, Run], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of ``repeats`` runs of each side, run in turn after one warm-up run of each."""
    for run in sides.values():
        seconds(run, device)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            times[name].append(seconds(run, device))
    return times


def seconds(run: Run, device: torch.device) -> float:
    """Wall time of one run, including the device's work."""
    _wait_for(device)
    start = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - start


def peak_memory(run: Run, device: torch.device) -> int:
    """Peak bytes of one run above the level before it, in the GPU's allocator or, on the CPU, in the process.

    On Linux, processes that the run starts count too, each with its own peak. On the CPU, call it in a fresh process
    (``in_a_process``), where no earlier run left freed memory. Without Linux's /proc, memory freed earlier is
    subtracted from the peak.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    if _CLEAR_REFS.exists():
        _give_free_memory_back()
        _CLEAR_REFS.write_text(_RESET_PEAK)
    before = _peak_of_process()
    run()
    return _peak_of_process() - before


def _give_free_memory_back() -> None:
    """Let glibc return freed memory to the system, so that reusing it counts towards the peak."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _peak_of_process() -> int:
    """Peak resident bytes; on Linux since the last reset, with the peaks of child processes."""
    if _STATUS.exists():
        children = [Path(f"/proc/{child.pid}/status") for child in psutil.Process().children(recursive=True)]
        return sum(_peak_in(status) for status in (_STATUS, *children))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KILOBYTE)


def _peak_in(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * KILOBYTE


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``function`` in a fresh process and return its result."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=follow_parent) as pool:
        return pool.submit(function, *arguments).result()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
