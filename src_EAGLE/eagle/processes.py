"""Helpers for worker processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eagle.errors import TrainingError

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit statuses
# `#SBATCH --signal=USR1@90` sends it 90 seconds before the job's time limit.
REQUEUE_SIGNAL = signal.SIGUSR1
# Variable with the process id of a command's launcher, with which it ends.
LAUNCHER = "EAGLE_LAUNCHER"


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def follow_parent(*_: object) -> None:
    """Make a worker process ignore Ctrl-C and exit when its parent exits, even if that was killed.

    Pass it as the initializer of an executor. Without it, or ``load_for_parent`` for a loader, workers of a killed
    process stay: those of an executor wait for the next job, and those of a loader under ``forkserver`` watch the fork
    server, which in turn waits for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()  # the process that requested this one, not the fork server
    if parent is not None:
        _exit_after(parent.join)


def load_for_parent(*_: object) -> None:
    """``follow_parent`` for the ``worker_init_fn`` of a loader; the process ignores SIGTERM and ``REQUEUE_SIGNAL`` too.

    ``timeout``, SLURM and containers send these to all processes of a run, which still needs the batches on their way
    to end its step and save.
    """
    follow_parent()
    for number in (signal.SIGTERM, REQUEUE_SIGNAL):
        signal.signal(number, signal.SIG_IGN)


def end_with(launcher: int) -> None:
    """Make this process exit within a second of its parent, process ``launcher``.

    For a command that ``run_script`` started, and for workers of joblib, which ``follow_parent`` does not end.
    """

    def wait() -> None:
        while os.getppid() == launcher:
            time.sleep(1)

    _exit_after(wait)


def _exit_after(wait: Callable[[], None]) -> None:
    def end() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def run_script(script: Path, words: Sequence[str], name: str) -> None:
    """Run a command, its Python file with ``words``, in a process of its own; ``name`` is what it does, for the error.

    SIGTERM is passed on, Ctrl-C reaches both; in both cases the command may save its work before it ends. If this
    process is killed, the command ends too.

    Raises:
        TrainingError: the command failed.
        SystemExit: the command was stopped by Ctrl-C or SIGTERM.
    """
    received: list[int] = []
    environment = {**os.environ, LAUNCHER: str(os.getpid())}
    child = subprocess.Popen([sys.executable, script, *words], stdin=subprocess.DEVNULL, env=environment)  # noqa: S603

    def receive(number: int, _: object) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            child.terminate()

    in_main = threading.current_thread() is threading.main_thread()
    previous = {n: signal.signal(n, receive) for n in (signal.SIGINT, signal.SIGTERM)} if in_main else {}
    try:
        status = child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received or status in STOPPED:
        # Hydra would go on with the next job of a sweep after any Exception.
        sys.exit(128 + received[0] if received else status)
    if status:
        raise TrainingError(f"{name} failed; its own message is above")
