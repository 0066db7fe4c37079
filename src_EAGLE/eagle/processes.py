"""Processes that do a command's work side by side."""

import multiprocessing
import os
import signal
import threading


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def follow_parent(*_: object) -> None:
    """Called in a worker process: leave Ctrl-C to the parent, and end when the parent does, even if it was killed.

    Workers of an executor would otherwise wait for jobs for ever after their parent was killed. A loader's workers
    watch the process above them instead, which under ``forkserver`` is the fork server: it waits for them in turn. The
    server and the resource tracker end when the last process that they serve does.

    Args:
        _: what an executor or a loader tells its workers, e.g. their number; not needed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()  # the one that asked for this process, however it was started
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
