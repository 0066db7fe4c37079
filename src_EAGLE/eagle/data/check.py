"""Decode a dataset: what it contains, and which files are broken or left out (``on_bad_image=skip``)."""

import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from eagle.console import text_table
from eagle.data.datasets.base import VOID, SegmentationDataset, read_sample
from eagle.data.images import IMAGE_SUFFIXES, is_turned
from eagle.errors import DataError

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """A readable image."""

    suffix: str  # of its file
    turned: bool  # by its EXIF orientation, which is not applied
    size: tuple[int, int]  # width and height
    pixels: np.ndarray  # counts by class id, void last (n_classes + 1)


@dataclass(frozen=True)
class Inspection:
    """Result of checking a dataset.

    Attributes:
        dataset: the whole dataset.
        samples: the readable samples among the images checked, by index.
        bad: one error message for each unreadable sample; each names the file.
    """

    dataset: SegmentationDataset
    samples: dict[int, Sample]
    bad: list[str]

    def shares(self) -> np.ndarray:
        """Each class's share of the labelled pixels, then void's share of all pixels."""
        pixels = np.sum([sample.pixels for sample in self.samples.values()], axis=0)
        return np.append(pixels[:-1] / max(1, pixels[:-1].sum()), pixels[-1] / max(1, pixels.sum()))

    def n_void_labels(self) -> int:
        """Number of images in which every pixel is void."""
        return sum(not sample.pixels[:-1].any() for sample in self.samples.values())

    def accepted(self, on_bad_image: str) -> SegmentationDataset:
        """The dataset; for ``skip``, without the bad images.

        Raises:
            DataError: an image is bad, for ``error``, or all are; names the first and counts them.
        """
        if not self.bad:
            return self.dataset
        if on_bad_image == "error" or not self.samples:
            n_checked = len(self.bad) + len(self.samples)
            more = f" ({len(self.bad)} of the {n_checked} images checked are bad)" if len(self.bad) > 1 else ""
            raise DataError(f"{self.bad[0]}{more}")
        return self.dataset.part(self.samples, self.bad)


def inspect_dataset(dataset: SegmentationDataset, description: str, max_images: int | None = None) -> Inspection:
    """Decode the images and labels of a dataset and record their properties.

    Args:
        dataset: the dataset.
        description: label of the progress bar.
        max_images: number of images to decode, evenly spaced; None for all.
    """
    n = len(dataset) if max_images is None else min(max_images, len(dataset))
    chosen: list[int] = np.linspace(0, len(dataset) - 1, n).astype(int).tolist()
    found = Inspection(dataset, {}, [])
    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL
        results = pool.map(lambda index: _inspect_sample(dataset, index), chosen)
        progress = tqdm(results, f"checking {description}", n, unit="image", leave=False)
        for index, sample in zip(chosen, progress, strict=True):
            if isinstance(sample, DataError):
                found.bad.append(str(sample))
            else:
                found.samples[index] = sample
    return found


def readable_part(dataset: SegmentationDataset, on_bad_image: str, description: str) -> SegmentationDataset:
    """The dataset itself for ``error``; for ``skip``, its readable images, found by decoding all of them.

    Raises:
        DataError: no image can be read.
    """
    if on_bad_image == "error":
        return dataset
    part = inspect_dataset(dataset, description).accepted(on_bad_image)
    for line in part.skipped:
        logger.warning("left out: %s", line)
    return part


def summary_table(inspections: Mapping[str, Inspection]) -> str:
    """One column per split: image counts, sizes, file formats, labels, void pixels and the most common class."""
    columns = [_column(inspection) for inspection in inspections.values()]
    facts = dict.fromkeys(chain.from_iterable(columns))
    return text_table(["", *inspections], [[fact, *(column.get(fact, "–") for column in columns)] for fact in facts])


def class_shares_table(inspections: Mapping[str, Inspection]) -> str:
    """Each class's share of the labelled pixels and void's share of all pixels, by split; empty without labels."""
    labelled = {split: found for split, found in inspections.items() if found.dataset.has_labels and found.samples}
    if not labelled:
        return ""
    names = (*next(iter(labelled.values())).dataset.classes.names, "void")
    shares = np.stack([found.shares() for found in labelled.values()], axis=1)
    rows = [[name, *(f"{share:.2%}" for share in row)] for name, row in zip(names, shares, strict=True)]
    return text_table(["share of pixels", *labelled], rows)


def _inspect_sample(dataset: SegmentationDataset, index: int) -> Sample | DataError:
    path = dataset.image_path(index)
    suffix = path.suffix.lower()
    try:
        image, label = read_sample(dataset, index)
        turned = suffix in IMAGE_SUFFIXES and is_turned(path)
    except DataError as error:
        return error
    n_classes = len(dataset.classes)
    label = label if dataset.has_labels else label[:0]
    pixels = np.bincount(np.where(label == VOID, n_classes, label).ravel(), minlength=n_classes + 1)
    return Sample(suffix, turned, image.size, pixels)


def _column(found: Inspection) -> dict[str, str]:
    samples, n_bad = found.samples.values(), len(found.bad)
    facts = {"images": str(len(found.dataset)), "checked": str(len(samples) + n_bad), "bad": str(n_bad)}
    if not samples:
        return facts
    for side, lengths in zip(("width", "height"), zip(*(sample.size for sample in samples), strict=True), strict=True):
        least, most = min(lengths), max(lengths)
        facts[side] = f"{least}" if least == most else f"{least} to {most}"
    formats = Counter(sample.suffix for sample in samples).most_common()
    facts["formats"] = ", ".join(f"{n} {suffix}" for suffix, n in formats)
    if n_turned := sum(sample.turned for sample in samples):
        facts["EXIF rotation (not applied)"] = str(n_turned)
    if not found.dataset.has_labels:
        return {**facts, "labels": "none"}
    shares, names = found.shares(), found.dataset.classes.names
    return facts | {
        "labels": str(len(samples)),
        "labels entirely void": str(found.n_void_labels()),
        "void pixels": f"{shares[-1]:.1%}",
        "classes present": f"{int((shares[:-1] > 0).sum())} of {len(names)}",
        "most common class": f"{names[shares[:-1].argmax()]} {shares[:-1].max():.1%}",
    }
