"""One image of an evaluation with its label and predictions."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """One evaluated image, for figures.

    Attributes:
        index: its index in the dataset.
        img: 3×H×W, normalised.
        label: H×W class ids, −1 = void.
        clusters: H×W cluster ids by map name.
    """

    index: int
    img: Tensor
    label: np.ndarray
    clusters: dict[str, np.ndarray]
