"""Exclude unreadable images from a dataset (``on_bad_image=skip``)."""

import logging

from eagle.data.check import Inspection, inspect_dataset
from eagle.data.datasets.base import DatasetPart, SegmentationDataset

logger = logging.getLogger(__name__)


def without_bad(dataset: SegmentationDataset, inspection: Inspection) -> DatasetPart:
    """The readable images of a fully inspected dataset; raises DataError if there are none."""
    if not inspection.samples:
        inspection.raise_if_bad()
    return DatasetPart(dataset, list(inspection.samples), inspection.bad.values())


def readable_part(dataset: SegmentationDataset, on_bad_image: str, description: str) -> SegmentationDataset:
    """The dataset itself for ``error``; for ``skip``, its readable images (decodes all images once)."""
    if on_bad_image == "error":
        return dataset
    part = without_bad(dataset, inspect_dataset(dataset, description))
    for line in part.skipped:
        logger.warning("left out: %s", line)
    return part
