"""Dense CRF of one map with pydensecrf; worker processes import this module, so it needs only numpy."""

import numpy as np
from numpy.typing import NDArray
from pydensecrf.densecrf import DenseCRF2D

from eagle.maps.crf.settings import (
    BILATERAL_COMPAT,
    BILATERAL_SRGB,
    BILATERAL_SXY,
    GAUSSIAN_COMPAT,
    GAUSSIAN_SXY,
    ITERATIONS,
)


def refine(bgr: NDArray[np.uint8], unary: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean-field inference with Potts compatibility and pydensecrf's symmetric normalisation.

    Args:
        bgr: H×W×3 uint8.
        unary: C×H×W float32, -log(probabilities).

    Returns:
        C×H×W float32 probabilities.
    """
    n_classes, height, width = unary.shape
    crf = DenseCRF2D(width, height, n_classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(n_classes, -1)))
    crf.addPairwiseGaussian(sxy=GAUSSIAN_SXY, compat=GAUSSIAN_COMPAT)
    crf.addPairwiseBilateral(
        sxy=BILATERAL_SXY, srgb=BILATERAL_SRGB, rgbim=np.ascontiguousarray(bgr), compat=BILATERAL_COMPAT
    )
    return np.asarray(crf.inference(ITERATIONS), dtype=np.float32).reshape(unary.shape)
