"""The released CRF's settings, and pydensecrf in a pool of processes, without the dead-locks of a forked pool.

Worker processes import this module, so it needs no torch.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from multiprocessing.util import Finalize

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


def pydensecrf_maps(jobs: Sequence[Job], processes: int | None) -> list[NDArray[np.float32]]:
    """Run jobs (H×W×3 BGR bytes, C×H×W unary energies) and return their C×H×W probabilities in order.

    Processes are spawned, not forked: a fork copies the locks of OpenMP and torch threads without the threads that
    would release them, which hangs the released evaluation. A spawned process imports the program's main file, which
    therefore needs an ``if __name__ == "__main__"`` guard.

    Args:
        jobs: images and maps.
        processes: number of processes, kept for later calls; None for one per usable core, 0 for none.

    Raises:
        ConfigError: pydensecrf is not installed or cannot be loaded.
        EagleError: a process died; the next call starts new ones.
    """
    require_pydensecrf()
    if processes == 0:
        return [pydensecrf_refine(*job) for job in jobs]
    try:
        return list(workers(processes or usable_cores()).map(pydensecrf_refine, *zip(*jobs, strict=True)))
    except BrokenProcessPool as error:
        workers.cache_clear()
        raise EagleError(
            "a CRF process died: lower crf_processes if memory ran out, guard the main file with "
            'if __name__ == "__main__", or use backend=torch'
        ) from error


@cache
def workers(processes: int) -> ProcessPoolExecutor:
    """Processes that end with this one."""
    pool = ProcessPoolExecutor(processes, get_context("spawn"), follow_parent)
    # At its end, a process of multiprocessing waits for its own. This comes first, before their queue closes (10).
    Finalize(None, pool.shutdown, exitpriority=20)
    return pool


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
