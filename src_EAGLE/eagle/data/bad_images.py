"""Leave images that cannot be read out of a dataset, as ``on_bad_image=skip`` asks."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.check import Inspection, inspect_dataset
from eagle.data.dataset import SegmentationDataset

logger = logging.getLogger(__name__)


class ReadableImages(SegmentationDataset):
    """A dataset without the images that could not be read.

    Args:
        dataset: all images.
        inspection: of every one of them.

    Raises:
        DataError: none could be read.
    """

    def __init__(self, dataset: SegmentationDataset, inspection: Inspection) -> None:
        if not inspection.samples:
            inspection.require_good()
        self._dataset = dataset
        self._indices = list(inspection.samples)
        self.classes = dataset.classes
        self.has_labels = dataset.has_labels
        self.skipped = tuple(inspection.bad.values())

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


def readable_part(dataset: SegmentationDataset, on_bad_image: str, description: str) -> SegmentationDataset:
    """The dataset itself for ``error``; for ``skip`` what is left of it after every image was read once."""
    if on_bad_image == "error":
        return dataset
    part = ReadableImages(dataset, inspect_dataset(dataset, description))
    for line in part.skipped:
        logger.warning("left out: %s", line)
    return part
