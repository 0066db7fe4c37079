"""Decode a dataset and record what it contains and which files are broken."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from eagle.data.datasets.base import VOID, Classes, SegmentationDataset, read_sample
from eagle.data.images import IMAGE_SUFFIXES, read_header
from eagle.errors import DataError

UPRIGHT = 1


@dataclass(frozen=True)
class Sample:
    """Properties of one readable image and its label map.

    Attributes:
        size: width and height in pixels.
        mode: the file's pixel format, e.g. RGB.
        rotated: whether EXIF tells viewers to rotate the image.
        pixels: pixel counts by class id, void last (n_classes + 1); None without labels.
    """

    size: tuple[int, int]
    mode: str
    rotated: bool
    pixels: np.ndarray | None


@dataclass(frozen=True)
class Inspection:
    """Result of checking a dataset.

    Attributes:
        n_images: size of the whole dataset.
        classes: the dataset's classes.
        samples: the readable samples among the images checked, by index.
        bad: one error message for each unreadable sample, by index; each names the file.
    """

    n_images: int
    classes: Classes
    samples: dict[int, Sample]
    bad: dict[int, str]

    def class_pixels(self) -> np.ndarray | None:
        """Pixel counts by class id, void last, summed over all samples; None without labels."""
        counts = [sample.pixels for sample in self.samples.values() if sample.pixels is not None]
        return np.sum(counts, axis=0) if counts else None

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
    num_threads: int | None = None,
) -> Inspection:
    """Decode the images and labels of a dataset and record their properties.

    Args:
        dataset: the dataset.
        description: label of the progress bar.
        max_images: number of images to decode, evenly spaced; None for all.
        res: count label pixels after resizing and centre-cropping to this size; None for whole label maps.
        num_threads: decoding threads (Pillow releases the GIL); None for Python's default.
    """
    n = len(dataset) if max_images is None else min(max_images, len(dataset))
    chosen: list[int] = np.linspace(0, len(dataset) - 1, n).astype(int).tolist()
    samples: dict[int, Sample] = {}
    bad: dict[int, str] = {}
    with ThreadPoolExecutor(num_threads) as pool:
        results = pool.map(lambda index: _inspect_sample(dataset, index, res), chosen)
        progress = tqdm(results, f"checking {description}", n, unit="image", leave=False)
        for index, sample in zip(chosen, progress, strict=True):
            if isinstance(sample, DataError):
                bad[index] = str(sample)
            else:
                samples[index] = sample
    return Inspection(len(dataset), dataset.classes, samples, bad)


def _inspect_sample(dataset: SegmentationDataset, index: int, res: int | None) -> Sample | DataError:
    try:
        image, label = read_sample(dataset, index)
        path = dataset.image_path(index)
        if path is not None and path.suffix.lower() in IMAGE_SUFFIXES:
            mode, orientation, _ = read_header(path)
        else:
            mode, orientation = image.mode, UPRIGHT
    except DataError as error:
        return error
    if res is not None:
        from eagle.data.loading.transforms import label_tensor  # imports torch, which cropping does not need

        label = label_tensor(label, res).numpy()
    n_classes = len(dataset.classes)
    pixels = None
    if dataset.has_labels:
        pixels = np.bincount(np.where(label == VOID, n_classes, label).ravel(), minlength=n_classes + 1)
    return Sample(image.size, mode, orientation != UPRIGHT, pixels)
