"""What every dataset offers: images with optional labels, class names and a palette."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.errors import DataError

VOID = -1


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset.

    Attributes:
        names: one for each class id.
        palette: n×3 uint8 RGB, one colour for each class id.
    """

    names: tuple[str, ...]
    palette: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


class SegmentationDataset(ABC):
    """Images of one split, in a fixed order, with their label maps where there are any.

    Attributes:
        classes: class names and palette.
        has_labels: whether ``label`` gives maps.
    """

    classes: Classes
    has_labels: bool

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's name without folder and suffix, unique in the split."""

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """The RGB image; raises DataError that names the file."""

    def image_path(self, index: int) -> Path | None:  # noqa: ARG002
        """The file that ``image`` reads; None where the images do not come one from a file."""
        return None

    @abstractmethod
    def label(self, index: int) -> np.ndarray:
        """Class ids, H×W int32 of the image's size, −1 for void; raises DataError that names the file."""


def read_sample(dataset: SegmentationDataset, index: int) -> tuple[Image.Image, np.ndarray]:
    """Image and label map (all void where the dataset has no labels); raises DataError where their sizes differ."""
    image = dataset.image(index)
    size = (image.height, image.width)
    label = dataset.label(index) if dataset.has_labels else np.full(size, VOID, dtype=np.int32)
    if label.shape != size:
        raise DataError(
            f"{dataset.name(index)}: the label map is {label.shape[1]}×{label.shape[0]} pixels, "
            f"its image {image.width}×{image.height}"
        )
    return image, label
