"""Find processes by a mark in their environment, because a killed parent can no longer list its children."""

import time
from collections.abc import Callable

import psutil


def marked(name: str, value: str) -> list[psutil.Process]:
    """Return the running processes with this environment variable."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # of another user, or ended
            continue
    return found


def left_after(seconds: float, find: Callable[[], list[psutil.Process]]) -> list[str]:
    """Wait for the found processes to end; kill those left after ``seconds`` and return their command lines."""
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
