"""Pool of processes for pydensecrf, without the dead-locks of a forked pool."""

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module  # noqa: TID251
from types import ModuleType, TracebackType

import numpy as np
from numpy.typing import NDArray

from eagle.errors import ConfigError, EagleError
from eagle.processes import follow_parent, usable_cores

Job = tuple[NDArray[np.uint8], NDArray[np.float32]]


class CrfPool:
    """Context manager with processes for the pydensecrf backend of ``dense_crf``; they start with the first job.

    The processes are spawned, not forked: a fork copies the locks of OpenMP and torch threads without the threads that
    would release them, which hangs the released evaluation. A spawned process imports the program's main file, which
    therefore needs an ``if __name__ == "__main__"`` guard.

    Args:
        processes: number of processes; None for one per usable core, 0 to run every job in this process.

    Raises:
        ConfigError: ``processes`` is negative.
    """

    def __init__(self, processes: int | None = None) -> None:
        self.processes = usable_cores() if processes is None else processes
        if self.processes < 0:
            raise ConfigError(f"crf_processes: {processes} is too small; the minimum is 0")
        self._executor: ProcessPoolExecutor | None = None

    def refine(self, jobs: Iterable[Job]) -> list[NDArray[np.float32]]:
        """Run jobs (H×W×3 BGR bytes, C×H×W unary energies) and return their C×H×W probabilities in order.

        Raises:
            ConfigError: pydensecrf is not installed or cannot be loaded.
            EagleError: a process died.
        """
        refine_one = pydensecrf_worker().refine
        if self.processes == 0:
            return [refine_one(bgr, unary) for bgr, unary in jobs]
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.processes, mp_context=context, initializer=follow_parent)
        try:
            futures = [self._executor.submit(refine_one, bgr, unary) for bgr, unary in jobs]
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            self.close()
            raise EagleError(
                "a CRF process died: lower crf_processes if memory ran out, guard the main file with "
                'if __name__ == "__main__", or use backend=torch'
            ) from error

    def close(self) -> None:
        """Stop the processes and cancel pending jobs; the next use starts new processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def __enter__(self) -> "CrfPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def pydensecrf_worker() -> ModuleType:
    """The module that runs pydensecrf; raises ConfigError with install instructions if that cannot be loaded."""
    try:
        import_module("pydensecrf.densecrf")
        return import_module("eagle.maps.crf.pydensecrf_worker")
    except (ImportError, ValueError) as error:  # ValueError: compiled for another numpy
        raise ConfigError(
            f"pydensecrf cannot be loaded ({error}): run `pip install -e .[crf]` or use backend=torch"
        ) from error
