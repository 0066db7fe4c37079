"""A look at a dataset before hours are spent on it: what it holds and what is broken."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from eagle.data.datasets.base import VOID, Classes, SegmentationDataset, read_sample
from eagle.data.images import IMAGE_SUFFIXES, read_header
from eagle.data.loading.transforms import label_tensor
from eagle.errors import DataError

UPRIGHT = 1


@dataclass(frozen=True)
class Sample:
    """What one readable image and its label map are.

    Attributes:
        size: width and height in pixels.
        mode: the file's pixel format, e.g. RGB.
        rotated: whether the file asks viewers to turn it (EXIF).
        pixels: n_classes + 1 counts of pixels by class id, void last; None without labels.
    """

    size: tuple[int, int]
    mode: str
    rotated: bool
    pixels: np.ndarray | None


@dataclass(frozen=True)
class Inspection:
    """What was found in a dataset.

    Attributes:
        n_images: size of the whole dataset.
        classes: the dataset's.
        samples: the readable ones of the images looked at, by index.
        bad: why the others are not readable, by index, one line that names the file.
    """

    n_images: int
    classes: Classes
    samples: dict[int, Sample]
    bad: dict[int, str]

    def class_pixels(self) -> np.ndarray | None:
        """Pixels by class id, void last, over all samples; None without labels."""
        counts = [sample.pixels for sample in self.samples.values() if sample.pixels is not None]
        return np.sum(counts, axis=0) if counts else None

    def n_void(self) -> int:
        """How many label maps are void all over."""
        return sum(sample.pixels is not None and not sample.pixels[:-1].any() for sample in self.samples.values())

    def require_good(self) -> None:
        """Raise DataError with the first bad file, and how many there are."""
        if self.bad:
            looked_at = len(self.bad) + len(self.samples)
            more = f" ({len(self.bad)} of the {looked_at} images looked at are bad)" if len(self.bad) > 1 else ""
            raise DataError(f"{next(iter(self.bad.values()))}{more}")


def inspect_dataset(
    dataset: SegmentationDataset,
    description: str,
    at_most: int | None = None,
    res: int | None = None,
    num_threads: int | None = None,
) -> Inspection:
    """Decode images and labels of a dataset and note what they are.

    Args:
        dataset: the images.
        description: for the progress bar.
        at_most: how many, evenly spread; None for all.
        res: count the pixels of labels resized and cropped for this resolution; None for whole labels.
        num_threads: threads that decode (Pillow decodes outside Python's lock); None for Python's choice.
    """
    n = len(dataset) if at_most is None else min(at_most, len(dataset))
    chosen: list[int] = np.linspace(0, len(dataset) - 1, n).astype(int).tolist()
    samples: dict[int, Sample] = {}
    bad: dict[int, str] = {}
    with ThreadPoolExecutor(num_threads) as pool:
        found = pool.map(lambda index: _inspected(dataset, index, res), chosen)
        progress = tqdm(found, f"checking {description}", n, unit="image", leave=False)
        for index, sample in zip(chosen, progress, strict=True):
            if isinstance(sample, DataError):
                bad[index] = str(sample)
            else:
                samples[index] = sample
    return Inspection(len(dataset), dataset.classes, samples, bad)


def _inspected(dataset: SegmentationDataset, index: int, res: int | None) -> Sample | DataError:
    try:
        image, label = read_sample(dataset, index)
        path = dataset.image_path(index)
        if path is not None and path.suffix.lower() in IMAGE_SUFFIXES:
            mode, orientation = read_header(path)
        else:
            mode, orientation = image.mode, UPRIGHT
    except DataError as error:
        return error
    counted = label if res is None else label_tensor(label, res).numpy()
    n_classes = len(dataset.classes)
    pixels = None
    if dataset.has_labels:
        pixels = np.bincount(np.where(counted == VOID, n_classes, counted).ravel(), minlength=n_classes + 1)
    return Sample(image.size, mode, orientation != UPRIGHT, pixels)
