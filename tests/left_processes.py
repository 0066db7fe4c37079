"""Find processes by a mark in the environment they were started with: a killed parent cannot name them any more."""

import time
from collections.abc import Callable

import psutil


def marked(name: str, value: str) -> list[psutil.Process]:
    """Running processes that were started with an environment variable."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # another user's, or gone
            continue
    return found


def left_after(seconds: float, find: Callable[[], list[psutil.Process]]) -> list[str]:
    """Command lines of the processes that are found still when the time is up; they are killed then."""
    end = time.monotonic() + seconds
    while (left := find()) and time.monotonic() < end:
        time.sleep(0.1)
    lines = []
    for process in left:
        try:
            lines.append(" ".join([str(process.pid), *process.cmdline()]))
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return lines
