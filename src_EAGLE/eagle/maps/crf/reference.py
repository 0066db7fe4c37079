"""The settings of the released CRF, and its library, pydensecrf.

The worker processes of the benchmark import this module, so it needs no torch.
"""

import numpy as np
from numpy.typing import NDArray

from eagle.errors import ConfigError

# Of the released evaluation, for every backend.
ITERATIONS = 10
GAUSSIAN_SXY = 1  # pixels
GAUSSIAN_COMPAT = 3
BILATERAL_SXY = 67  # pixels
BILATERAL_SRGB = 3  # of the 256 levels of a channel
BILATERAL_COMPAT = 4


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
