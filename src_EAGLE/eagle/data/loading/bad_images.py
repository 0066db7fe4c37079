"""Leave images that cannot be read out of a dataset, as ``on_bad_image=skip`` asks."""

import logging

from eagle.data.check import Inspection, inspect_dataset
from eagle.data.datasets.base import DatasetPart, SegmentationDataset

logger = logging.getLogger(__name__)


class ReadableImages(DatasetPart):
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
        super().__init__(dataset, list(inspection.samples), inspection.bad.values())


def readable_part(dataset: SegmentationDataset, on_bad_image: str, description: str) -> SegmentationDataset:
    """The dataset itself for ``error``; for ``skip`` what is left of it after every image was read once."""
    if on_bad_image == "error":
        return dataset
    part = ReadableImages(dataset, inspect_dataset(dataset, description))
    for line in part.skipped:
        logger.warning("left out: %s", line)
    return part
