"""Cut the images of a dataset into five training crops each; ``datasets/cropped.py`` describes their folder."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.data.datasets.base import SPLITS, SegmentationDataset, missing_files, read_sample
from eagle.data.datasets.cropped import CROPS_PER_IMAGE, RECORD, CropSet, JpegSettings
from eagle.errors import ConfigError, DataError
from eagle.files import remove_unfinished, write_text_atomically, written_atomically
from eagle.processes import usable_cores

logger = logging.getLogger(__name__)


class Box(NamedTuple):
    """Rectangle in pixels; right and bottom are exclusive, as in PIL's ``crop``."""

    left: int
    top: int
    right: int
    bottom: int


def five_boxes(width: int, height: int, ratio: float) -> list[Box]:
    """Top left, top right, bottom left, bottom right and centre crops, as in torchvision's ``five_crop``.

    Args:
        width: image width.
        height: image height.
        ratio: crop side divided by image side; crop sides are rounded down to pixels.

    Raises:
        ConfigError: a crop would have no pixels.
    """
    w, h = _crop_size(width, height, ratio)
    right, bottom = width - w, height - h
    # Halves round to even, as in torchvision's centre crop.
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (round(right / 2), round(bottom / 2))]
    return [Box(x, y, x + w, y + h) for x, y in corners]


def random_boxes(width: int, height: int, ratio: float, rng: np.random.Generator) -> list[Box]:
    """Five boxes of the same size at uniformly random positions; raises ConfigError like five_boxes."""
    w, h = _crop_size(width, height, ratio)
    xs = rng.integers(width - w, size=CROPS_PER_IMAGE, endpoint=True).tolist()
    ys = rng.integers(height - h, size=CROPS_PER_IMAGE, endpoint=True).tolist()
    return [Box(x, y, x + w, y + h) for x, y in zip(xs, ys, strict=True)]


def crop_split(
    dataset: SegmentationDataset, split: str, crops: CropSet, jpeg: JpegSettings, seed: int, num_threads: int | None
) -> int:
    """Write a split's missing crops, and those of images that have changed since they were cropped.

    Args:
        dataset: the whole images.
        split: "train" or "val".
        crops: where the crops lie.
        jpeg: JPEG settings.
        seed: seed of random crops; the crops do not depend on num_threads.
        num_threads: images cropped at once (Pillow releases the GIL); None for one per core.

    Returns:
        Number of crops written.

    Raises:
        ConfigError: a crop would have no pixels.
        DataError: an image is broken, crops cannot be written, or the folder holds crops made with other parameters.
    """

    def crop_image(index: int) -> None:
        image, label = read_sample(dataset, index)
        if crops.crop_type == "five":
            boxes = five_boxes(image.width, image.height, crops.crop_ratio)
        else:
            rng = np.random.default_rng((seed, SPLITS.index(split), index))
            boxes = random_boxes(image.width, image.height, crops.crop_ratio, rng)
        stored_label = Image.fromarray((label + 1).astype(np.uint8))
        for number, box in enumerate(boxes, CROPS_PER_IMAGE * index):
            with written_atomically(crops.image(split, number)) as temporary:
                image.crop(box).save(temporary, quality=jpeg.jpeg_quality, subsampling=jpeg.jpeg_subsampling)
            if dataset.has_labels:
                with written_atomically(crops.label(split, number)) as temporary:
                    stored_label.crop(box).save(temporary)

    try:
        _record_split(dataset, split, crops, {**asdict(jpeg), "seed": seed if crops.crop_type == "random" else None})
        pending = _uncropped(dataset, split, crops)
        with ThreadPoolExecutor(num_threads or usable_cores()) as pool:
            progress = tqdm(pool.map(crop_image, pending), f"{crops.folder.name} {split}", len(pending), unit="image")
            for _ in progress:
                pass
    except OSError as error:
        raise DataError(
            f"{crops.folder}: crops cannot be written ({error.strerror or error}); fix this and run the command again; "
            "finished crops are kept"
        ) from error
    return CROPS_PER_IMAGE * len(pending)


def _record_split(dataset: SegmentationDataset, split: str, crops: CropSet, settings: dict[str, Any]) -> None:
    """Refuse other parameters, delete the crops of images that have changed, and record parameters and images."""
    parameters = {
        "dataset_name": crops.dataset_name,
        "dir_dataset_name": crops.dataset_label if crops.dataset_name == "directory" else None,
        "crop_type": crops.crop_type,
        "crop_ratio": crops.crop_ratio,
        **settings,
    }
    record = crops.read_record() or {"parameters": parameters, "splits": {}}
    before = record["splits"].get(split)
    found = record["parameters"]
    differing = [
        f"{name} {found.get(name)} instead of {value}" for name, value in parameters.items() if found.get(name) != value
    ]
    if differing:
        raise DataError(
            f"{crops.folder}: these crops were made with {', '.join(differing)}; move the folder away, or use the same "
            "values again"
        )
    images = [_stamp(dataset, index) for index in range(len(dataset))]
    if before is not None:
        # Deleted before the record changes, so that a run killed in between leaves no crop of the old image.
        for index, (now, then) in enumerate(zip_longest(images, before["images"])):
            if now != then:
                _delete_crops(split, crops, index)
    elif crops.images(split).is_dir():
        logger.warning("%s: crops without a record of their images are kept", crops.images(split))
    splits = {**record["splits"], split: {"labels": dataset.has_labels, "images": images}}
    write_text_atomically(crops.folder / RECORD, json.dumps({"parameters": parameters, "splits": splits}))


def _stamp(dataset: SegmentationDataset, index: int) -> list[Any]:
    """Name of an image, and size and time of its files."""
    files = [path for path in (dataset.image_path(index), dataset.label_path(index)) if path is not None]
    status = [path.stat() for path in files]
    return [dataset.name(index), *(value for file in status for value in (file.st_size, file.st_mtime_ns))]


def _delete_crops(split: str, crops: CropSet, index: int) -> None:
    for number in range(CROPS_PER_IMAGE * index, CROPS_PER_IMAGE * (index + 1)):
        crops.image(split, number).unlink(missing_ok=True)
        crops.label(split, number).unlink(missing_ok=True)


def _uncropped(dataset: SegmentationDataset, split: str, crops: CropSet) -> list[int]:
    """Indices of the images that lack a crop; also removes what a killed run left half-written."""
    folders = {crops.images(split): "jpg"} | ({crops.labels(split): "png"} if dataset.has_labels else {})
    for folder in (crops.folder, *folders):
        remove_unfinished(folder)
    numbers = range(CROPS_PER_IMAGE * len(dataset))
    missing = [
        path for folder, suffix in folders.items() for path in missing_files(folder, (f"{n}.{suffix}" for n in numbers))
    ]
    return sorted({int(path.stem) // CROPS_PER_IMAGE for path in missing})


def _crop_size(width: int, height: int, ratio: float) -> tuple[int, int]:
    size = int(width * ratio), int(height * ratio)
    if 0 in size:
        raise ConfigError(f"crop_ratio: {ratio} leaves no pixels of a {width}×{height} image; increase it")
    return size
