"""What every dataset offers: images with optional labels, class names and a palette."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
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
        skipped: a line for each image that was left out because it cannot be read.
    """

    classes: Classes
    has_labels: bool
    skipped: tuple[str, ...] = ()

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


class DatasetPart(SegmentationDataset):
    """Some images of a dataset.

    Args:
        dataset: all images.
        indices: of those that are left, in their order.
        skipped: a line for each image that was left out because it cannot be read.
    """

    def __init__(self, dataset: SegmentationDataset, indices: Sequence[int], skipped: Iterable[str] = ()) -> None:
        self._dataset = dataset
        self._indices = indices
        self.classes = dataset.classes
        self.has_labels = dataset.has_labels
        self.skipped = tuple(skipped)

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        """The image's name in the whole dataset."""
        return self._dataset.name(self._indices[index])

    def image_path(self, index: int) -> Path | None:
        """The image's file."""
        return self._dataset.image_path(self._indices[index])

    def image(self, index: int) -> Image.Image:
        """The RGB image."""
        return self._dataset.image(self._indices[index])

    def label(self, index: int) -> np.ndarray:
        """Class ids."""
        return self._dataset.label(self._indices[index])


def read_sample(dataset: SegmentationDataset, index: int) -> tuple[Image.Image, np.ndarray]:
    """Image and label map (all void where the dataset has no labels); raises DataError where their sizes differ."""
    image = dataset.image(index)
    size = (image.height, image.width)
    label = dataset.label(index) if dataset.has_labels else np.full(size, VOID, dtype=np.int32)
    if label.shape != size:
        turned = "; turn the pixels of images that EXIF turns in viewers, e.g. with `mogrify -auto-orient`"
        raise DataError(
            f"{dataset.image_path(index) or dataset.name(index)}: the label map is {label.shape[1]}×{label.shape[0]} "
            f"pixels, its image {image.width}×{image.height}{turned if label.shape == size[::-1] else ''}"
        )
    return image, label
