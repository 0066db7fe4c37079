"""Single pictures of one image: the image, an eigenvector, a label map; shown in figures and written as PNG."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import matplotlib
import numpy as np
from PIL import Image

from eagle.data.labels import colored, write_colored_ids, write_image

# Diverging, dark at zero, perceptually uniform and safe for colour-blind readers (Crameri's scientific colour maps).
EIGENVECTOR_COLORS = matplotlib.colormaps["managua"]
# The colour range ends at this quantile of the magnitudes, so that a few outlying patches don't fade all others.
COLOR_LIMIT_QUANTILE = 0.98

Size = tuple[int, int]


@dataclass(frozen=True)
class Panel(ABC):
    """A picture of one image.

    Attributes:
        kind: last part of its file names.
        title: column title in figures.
        smooth: whether pixels may be interpolated.
    """

    kind: str
    title: str
    smooth: ClassVar[bool] = False

    @abstractmethod
    def colors(self) -> np.ndarray:
        """One pixel per value, h×w×3 uint8."""

    def write(self, path: Path, size: Size) -> None:
        """Write a PNG of a size (height, width)."""
        write_image(path, resized_patches(self.colors(), size))


@dataclass(frozen=True)
class ImagePanel(Panel):
    """The RGB image itself."""

    image: Image.Image
    smooth: ClassVar[bool] = True

    def colors(self) -> np.ndarray:
        """See Panel."""
        return np.asarray(self.image)

    def write(self, path: Path, size: Size) -> None:
        """See Panel; resized smoothly."""
        write_image(path, np.asarray(self.image.resize(size[::-1], Image.Resampling.LANCZOS)))


@dataclass(frozen=True)
class EigenvectorPanel(Panel):
    """An eigenvector; ``values`` is h×w, one value per patch."""

    values: np.ndarray

    def colors(self) -> np.ndarray:
        """See Panel; the colour range is symmetric about zero."""
        limit = np.quantile(np.abs(self.values), COLOR_LIMIT_QUANTILE) or 1.0
        return EIGENVECTOR_COLORS(np.clip((self.values / limit + 1) / 2, 0, 1), bytes=True)[:, :, :3]


@dataclass(frozen=True)
class LabelPanel(Panel):
    """A label map.

    Attributes:
        ids: h×w class ids or labels, −1 for none.
        palette: n×3 uint8, the colour of each id.
    """

    ids: np.ndarray
    palette: np.ndarray

    def colors(self) -> np.ndarray:
        """See Panel."""
        return colored(self.ids, self.palette)

    def write(self, path: Path, size: Size) -> None:
        """Write a palette PNG whose indices are the ids (RGB for more than 255 ids), see ``write_colored_ids``."""
        write_colored_ids(path, resized_patches(self.ids, size), self.palette)


def resized_patches(values: np.ndarray, size: Size) -> np.ndarray:
    """Resize h×w(×…) values to (height, width) by nearest neighbour."""
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, values.shape, strict=False))
    return values[rows[:, None], columns]
