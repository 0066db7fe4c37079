"""One image of an evaluation, with what was predicted for it."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """One evaluated image, for figures.

    Attributes:
        index: its number in the dataset.
        img: 3×H×W, normalised.
        label: H×W class ids, −1 = void.
        clusters: by map name, H×W cluster ids.
    """

    index: int
    img: Tensor
    label: np.ndarray
    clusters: dict[str, np.ndarray]
