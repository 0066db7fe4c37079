"""Single pictures of one image: itself, an eigenvector, a label map; each drawn in figures and written as PNG."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from eagle.data.label_images import write_colored_ids, write_image
from eagle.data.palette import colored

# Diverging, dark at zero, of even steps, and safe for colour-blind eyes (Crameri's scientific colour maps).
EIGENVECTOR_COLORS = matplotlib.colormaps["managua"]
# An eigenvector's colours end at this quantile of its magnitudes: some patches far out would pale all others.
COLOR_LIMIT_QUANTILE = 0.98

Size = tuple[int, int]


@dataclass(frozen=True)
class Panel(ABC):
    """A picture of one image.

    Attributes:
        kind: ends the names of its files.
        title: heads its column in figures.
    """

    kind: str
    title: str

    @abstractmethod
    def rgb(self, size: Size) -> np.ndarray:
        """Pixels at a size (height, width), H×W×3 uint8."""

    def write(self, path: Path, size: Size) -> None:
        """Write a PNG of a size (height, width)."""
        write_image(path, self.rgb(size))


@dataclass(frozen=True)
class ImagePanel(Panel):
    """The image itself; ``image`` is RGB, of any size."""

    image: Image.Image

    def rgb(self, size: Size) -> np.ndarray:
        """See Panel; smooth."""
        return np.asarray(self.image.resize(size[::-1], Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class EigenvectorPanel(Panel):
    """An eigenvector; ``values`` is h×w, on the grid of patches."""

    values: np.ndarray

    def rgb(self, size: Size) -> np.ndarray:
        """See Panel; patches have sharp edges, and the colours of both signs end at the same magnitude."""
        limit = np.quantile(np.abs(self.values), COLOR_LIMIT_QUANTILE) or 1.0
        colors = EIGENVECTOR_COLORS(np.clip((self.values / limit + 1) / 2, 0, 1), bytes=True)[:, :, :3]
        return resized_patches(colors, size)


@dataclass(frozen=True)
class LabelPanel(Panel):
    """A label map.

    Attributes:
        ids: h×w class ids or labels, −1 for none.
        palette: n×3 uint8, the ids' colours.
    """

    ids: np.ndarray
    palette: np.ndarray

    def rgb(self, size: Size) -> np.ndarray:
        """See Panel; sharp edges."""
        return colored(resized_patches(self.ids, size), self.palette)

    def write(self, path: Path, size: Size) -> None:
        """A PNG of ``write_colored_ids``: of up to 255 ids its indices are the ids."""
        write_colored_ids(path, resized_patches(self.ids, size), self.palette)


def resized_patches(values: np.ndarray, size: Size) -> np.ndarray:
    """h×w(×…) at another size, each pixel the value that its middle falls on."""
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, values.shape, strict=False))
    return values[rows[:, None], columns]
