"""Dataset interface: images with optional labels, class names and a palette."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.images import read_image
from eagle.errors import DataError

VOID = -1


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset.

    Attributes:
        names: class names by class id.
        palette: RGB colours by class id, n×3 uint8.
    """

    names: tuple[str, ...]
    palette: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


class SegmentationDataset(ABC):
    """Images of one split in a fixed order, with optional label maps.

    Attributes:
        classes: class names and palette.
        has_labels: whether ``label`` may be called.
        skipped: one error message for each image left out because it cannot be read.
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
        """The image's file; None if the dataset does not store one image per file."""
        return None

    @abstractmethod
    def label(self, index: int) -> np.ndarray:
        """Class ids, H×W int32 in the image's size, −1 for void; raises DataError that names the file."""


class ImageFileDataset(SegmentationDataset):
    """Dataset that stores one image per file; the file's stem is the image's name."""

    @abstractmethod
    def image_path(self, index: int) -> Path:
        """The image's file."""

    def name(self, index: int) -> str:
        """The file's stem."""
        return self.image_path(index).stem

    def image(self, index: int) -> Image.Image:
        """The RGB image."""
        return read_image(self.image_path(index))


class DatasetPart(SegmentationDataset):
    """A subset of a dataset.

    Args:
        dataset: the whole dataset.
        indices: indices of the images to keep, in order.
        skipped: one error message for each image left out because it cannot be read.
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
    """Read image and label map (all void for a dataset without labels); raises DataError if their sizes differ."""
    image = dataset.image(index)
    size = (image.height, image.width)
    label = dataset.label(index) if dataset.has_labels else np.full(size, VOID, dtype=np.int32)
    if label.shape != size:
        transposed = label.shape == size[::-1]
        hint = "; apply the EXIF rotation to the image's pixels, e.g. with `mogrify -auto-orient`" if transposed else ""
        raise DataError(
            f"{dataset.image_path(index) or dataset.name(index)}: the label map is {label.shape[1]}×{label.shape[0]} "
            f"pixels, its image {image.width}×{image.height}{hint}"
        )
    return image, label
