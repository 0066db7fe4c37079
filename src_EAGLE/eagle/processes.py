"""Helpers for worker processes."""

import multiprocessing
import os
import signal
import threading


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def follow_parent(*_: object) -> None:
    """Make a worker process ignore Ctrl-C and exit when its parent exits, even if that was killed.

    Pass it as the initializer of an executor or the ``worker_init_fn`` of a loader. Workers of an executor would
    otherwise wait for jobs forever. Workers of a loader watch the process that forked them; under ``forkserver`` that
    is the fork server, which exits only after its workers do.

    Args:
        _: arguments that the executor or loader passes; ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()  # the process that requested this one, not the fork server
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
