"""Decode a dataset: what it contains, and which files are broken or left out (``on_bad_image=skip``)."""

import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from eagle.console import text_table
from eagle.data.datasets.base import VOID, SegmentationDataset, read_sample
from eagle.data.images import IMAGE_SUFFIXES, UPRIGHT, Header, read_header
from eagle.errors import DataError
from eagle.files import write_text_atomically

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """One readable image: its header, and pixel counts by class id, void last (n_classes + 1); None without labels."""

    header: Header
    pixels: np.ndarray | None


@dataclass(frozen=True)
class Inspection:
    """Result of checking a dataset.

    Attributes:
        dataset: the whole dataset.
        samples: the readable samples among the images checked, by index.
        bad: one error message for each unreadable sample, by index; each names the file.
    """

    dataset: SegmentationDataset
    samples: dict[int, Sample]
    bad: dict[int, str]

    def shares(self) -> np.ndarray | None:
        """Each class's share of the labelled pixels, then void's share of all pixels; None without labels."""
        counts = [sample.pixels for sample in self.samples.values() if sample.pixels is not None]
        if not counts:
            return None
        pixels = np.sum(counts, axis=0)
        return np.append(pixels[:-1] / max(1, pixels[:-1].sum()), pixels[-1] / max(1, pixels.sum()))

    def n_void_labels(self) -> int:
        """Number of label maps in which every pixel is void."""
        return sum(sample.pixels is not None and not sample.pixels[:-1].any() for sample in self.samples.values())

    def raise_if_bad(self) -> None:
        """Raise DataError that names the first bad file and counts all of them."""
        if self.bad:
            n_checked = len(self.bad) + len(self.samples)
            more = f" ({len(self.bad)} of the {n_checked} images checked are bad)" if len(self.bad) > 1 else ""
            raise DataError(f"{next(iter(self.bad.values()))}{more}")


def inspect_dataset(
    dataset: SegmentationDataset,
    description: str,
    max_images: int | None = None,
    res: int | None = None,
) -> Inspection:
    """Decode the images and labels of a dataset and record their properties.

    Args:
        dataset: the dataset.
        description: label of the progress bar.
        max_images: number of images to decode, evenly spaced; None for all.
        res: count label pixels after resizing and centre-cropping to this size; None for whole label maps.
    """
    n = len(dataset) if max_images is None else min(max_images, len(dataset))
    chosen: list[int] = np.linspace(0, len(dataset) - 1, n).astype(int).tolist()
    samples: dict[int, Sample] = {}
    bad: dict[int, str] = {}
    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL
        results = pool.map(lambda index: _inspect_sample(dataset, index, res), chosen)
        progress = tqdm(results, f"checking {description}", n, unit="image", leave=False)
        for index, sample in zip(chosen, progress, strict=True):
            if isinstance(sample, DataError):
                bad[index] = str(sample)
            else:
                samples[index] = sample
    return Inspection(dataset, samples, bad)


def without_bad(dataset: SegmentationDataset, bad: Mapping[int, str]) -> SegmentationDataset:
    """The images of a dataset that are not ``bad`` (error messages by index)."""
    return dataset.part([index for index in range(len(dataset)) if index not in bad], bad.values())


def readable_part(dataset: SegmentationDataset, on_bad_image: str, description: str) -> SegmentationDataset:
    """The dataset itself for ``error``; for ``skip``, its readable images, found by decoding all of them.

    Raises:
        DataError: no image can be read.
    """
    if on_bad_image == "error":
        return dataset
    found = inspect_dataset(dataset, description)
    if not found.samples:
        found.raise_if_bad()
    for line in found.bad.values():
        logger.warning("left out: %s", line)
    return without_bad(dataset, found.bad)


def list_bad_images(path: Path, train_set: SegmentationDataset, val_set: SegmentationDataset) -> None:
    """Write one line per image that training leaves out, and log their number; no file without any."""
    lines, n_skipped = [*train_set.skipped, *val_set.skipped], (len(train_set.skipped), len(val_set.skipped))
    if lines:
        # File names may contain bytes that are not valid text.
        text = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace").decode()
        write_text_atomically(path, text)
        logger.warning("bad images left out: %d of training, %d of validation, listed in %s", *n_skipped, path)


def summary_table(inspections: Mapping[str, Inspection]) -> str:
    """One column per split: image counts, sizes, pixel formats, labels, void pixels and the most common class."""
    columns = [_column(inspection) for inspection in inspections.values()]
    # In the order of the longest column; a split without readable images has fewer facts.
    facts = dict.fromkeys(fact for column in sorted(columns, key=len, reverse=True) for fact in column)
    rows = [[fact, *(column.get(fact, "–") for column in columns)] for fact in facts]
    return text_table(["", *inspections], rows)


def class_shares_table(inspections: Mapping[str, Inspection]) -> str:
    """Each class's share of the labelled pixels and void's share of all pixels, by split; empty without labels."""
    shares = {split: found.shares() for split, found in inspections.items()}
    labelled = {split: share for split, share in shares.items() if share is not None}
    if not labelled:
        return ""
    names = (*inspections[next(iter(labelled))].dataset.classes.names, "void")
    rows = [[name, *(f"{share[number]:.2%}" for share in labelled.values())] for number, name in enumerate(names)]
    return text_table(["share of pixels", *labelled], rows)


def _inspect_sample(dataset: SegmentationDataset, index: int, res: int | None) -> Sample | DataError:
    try:
        image, label = read_sample(dataset, index)
        path = dataset.image_path(index)
        is_image = path.suffix.lower() in IMAGE_SUFFIXES
        header = read_header(path) if is_image else Header(image.mode, UPRIGHT, image.size)
    except DataError as error:
        return error
    if not dataset.has_labels:
        return Sample(header, None)
    if res is not None:
        from eagle.data.views import label_tensor  # imports torch, which cropping does not need

        label = label_tensor(label, res).numpy()
    n_classes = len(dataset.classes)
    return Sample(header, np.bincount(np.where(label == VOID, n_classes, label).ravel(), minlength=n_classes + 1))


def _column(found: Inspection) -> dict[str, str]:
    headers, n_bad = [sample.header for sample in found.samples.values()], len(found.bad)
    facts = {"images": str(len(found.dataset)), "checked": str(len(headers) + n_bad), "bad": str(n_bad)}
    if not headers:
        return facts
    for side, lengths in zip(("width", "height"), zip(*(header.size for header in headers), strict=True), strict=True):
        least, most = min(lengths), max(lengths)
        facts[side] = f"{least}" if least == most else f"{least} to {most}"
    facts["pixel formats"] = ", ".join(f"{mode} {n}" for mode, n in Counter(h.mode for h in headers).most_common())
    if n_rotated := sum(header.orientation != UPRIGHT for header in headers):
        facts["EXIF rotation (not applied)"] = str(n_rotated)
    shares, names = found.shares(), found.dataset.classes.names
    if shares is None:
        return {**facts, "labels": "none"}
    return facts | {
        "labels": str(len(headers)),
        "labels entirely void": str(found.n_void_labels()),
        "void pixels": f"{shares[-1]:.1%}",
        "classes present": f"{int((shares[:-1] > 0).sum())} of {len(names)}",
        "most common class": f"{names[shares[:-1].argmax()]} {shares[:-1].max():.1%}",
    }
