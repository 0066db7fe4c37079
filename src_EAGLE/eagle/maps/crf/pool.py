"""The released CRF's settings, and pydensecrf in a pool of processes, without the dead-locks of a forked pool.

Worker processes import this module, so it needs no torch.
"""

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from eagle.errors import ConfigError, EagleError
from eagle.processes import follow_parent, usable_cores

# Of the released evaluation, for every backend.
ITERATIONS = 10
GAUSSIAN_SXY = 1  # pixels
GAUSSIAN_COMPAT = 3
BILATERAL_SXY = 67  # pixels
BILATERAL_SRGB = 3  # of the 256 levels of a channel
BILATERAL_COMPAT = 4

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
        require_pydensecrf()
        if self.processes == 0:
            return [pydensecrf_refine(bgr, unary) for bgr, unary in jobs]
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.processes, mp_context=context, initializer=follow_parent)
        try:
            futures = [self._executor.submit(pydensecrf_refine, bgr, unary) for bgr, unary in jobs]
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


def pydensecrf_refine(bgr: NDArray[np.uint8], unary: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean-field inference with Potts compatibility and pydensecrf's symmetric normalisation.

    Args:
        bgr: H×W×3 uint8.
        unary: C×H×W float32, -log(probabilities).

    Returns:
        C×H×W float32 probabilities.
    """
    from pydensecrf.densecrf import DenseCRF2D

    n_classes, height, width = unary.shape
    crf = DenseCRF2D(width, height, n_classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(n_classes, -1)))
    crf.addPairwiseGaussian(sxy=GAUSSIAN_SXY, compat=GAUSSIAN_COMPAT)
    crf.addPairwiseBilateral(
        sxy=BILATERAL_SXY, srgb=BILATERAL_SRGB, rgbim=np.ascontiguousarray(bgr), compat=BILATERAL_COMPAT
    )
    return np.asarray(crf.inference(ITERATIONS), dtype=np.float32).reshape(unary.shape)


def require_pydensecrf() -> None:
    """Raise ConfigError with install instructions if pydensecrf cannot be loaded."""
    try:
        import pydensecrf.densecrf  # noqa: F401
    except (ImportError, ValueError) as error:  # ValueError: compiled for another numpy
        raise ConfigError(
            f"pydensecrf cannot be loaded ({error}): run `pip install -e .[crf]` or use backend=torch"
        ) from error
