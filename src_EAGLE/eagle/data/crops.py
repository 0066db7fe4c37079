"""Cut the images of a dataset into five training crops each; ``datasets/cropped.py`` describes their folder."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.data.datasets.base import SPLITS, SegmentationDataset, read_sample
from eagle.data.datasets.cropped import CROPS_PER_IMAGE, CropSet
from eagle.errors import ConfigError, DataError
from eagle.files import remove_unfinished, write_text_atomically, written_atomically
from eagle.processes import usable_cores

# Left, top, right and bottom in pixels; right and bottom are exclusive, as in PIL's ``crop``.
Box = tuple[int, int, int, int]


def crop_boxes(width: int, height: int, ratio: float, rng: np.random.Generator | None = None) -> list[Box]:
    """Five boxes of one size: the corners and the centre as in torchvision's ``five_crop``, or drawn from ``rng``.

    Args:
        width: image width.
        height: image height.
        ratio: box side divided by image side; box sides are rounded down to pixels.
        rng: draws the positions uniformly; None for corners and centre.

    Raises:
        ConfigError: a crop would have no pixels.
    """
    w, h = int(width * ratio), int(height * ratio)
    if 0 in (w, h):
        raise ConfigError(f"crop_ratio: {ratio} leaves no pixels of a {width}×{height} image; increase it")
    right, bottom = width - w, height - h
    if rng is None:
        # Halves round to even, as in torchvision's centre crop.
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (round(right / 2), round(bottom / 2))]
    else:
        xs, ys = (rng.integers(most, size=CROPS_PER_IMAGE, endpoint=True).tolist() for most in (right, bottom))
        corners = list(zip(xs, ys, strict=True))
    return [(x, y, x + w, y + h) for x, y in corners]


def crop_split(dataset: SegmentationDataset, split: str, crops: CropSet, cfg: Any) -> int:
    """Write a split's missing crops, and those of images edited since they were cropped; return their number.

    Args:
        dataset: the whole images.
        split: "train" or "val".
        crops: where the crops lie.
        cfg: the keys of ``crop_datasets.py``. The crops do not depend on ``num_processes``.

    Raises:
        ConfigError: a crop would have no pixels.
        DataError: an image is broken, crops cannot be written, or the folder holds crops of other images, or made with
            other parameters.
    """

    def crop_image(index: int) -> None:
        image, label = read_sample(dataset, index)
        rng = np.random.default_rng((cfg.seed, SPLITS.index(split), index)) if cfg.crop_type == "random" else None
        stored_label = Image.fromarray((label + 1).astype(np.uint8))
        boxes = crop_boxes(image.width, image.height, cfg.crop_ratio, rng)
        for number, box in enumerate(boxes, CROPS_PER_IMAGE * index):
            with written_atomically(crops.image(split, number)) as temporary:
                image.crop(box).save(temporary, quality=cfg.jpeg_quality, subsampling=cfg.jpeg_subsampling)
            if dataset.has_labels:
                with written_atomically(crops.label(split, number)) as temporary:
                    stored_label.crop(box).save(temporary)

    try:
        _record_split(dataset, split, crops, cfg)
        for folder in (crops.folder, crops.image(split, 0).parent, crops.label(split, 0).parent):
            remove_unfinished(folder)
        missing = crops.missing(split, CROPS_PER_IMAGE * len(dataset), dataset.has_labels)
        pending = sorted({int(path.stem) // CROPS_PER_IMAGE for path in missing})
        with ThreadPoolExecutor(cfg.num_processes or usable_cores()) as pool:  # Pillow releases the GIL
            list(tqdm(pool.map(crop_image, pending), f"{crops.folder.name} {split}", len(pending), unit="image"))
    except OSError as error:
        raise DataError(
            f"{crops.folder}: crops cannot be written ({error.strerror or error}); fix this and run the command again; "
            "finished crops are kept"
        ) from error
    return CROPS_PER_IMAGE * len(pending)


def _record_split(dataset: SegmentationDataset, split: str, crops: CropSet, cfg: Any) -> None:
    """Refuse other parameters or images, delete the crops of edited images, and record parameters and images."""
    parameters = {name: cfg[name] for name in ("jpeg_quality", "jpeg_subsampling")}
    parameters["seed"] = cfg.seed if cfg.crop_type == "random" else None
    found = crops.read_record()
    then = found["parameters"] or parameters
    differing = [
        f"{name} {then.get(name)} instead of {value}" for name, value in parameters.items() if then.get(name) != value
    ]
    recorded: dict[str, Any] = {
        "labels": dataset.has_labels,
        "images": [_stamp(dataset, index) for index in range(len(dataset))],
    }
    before = found["splits"].get(split, recorded)
    if [stamp[0] for stamp in before["images"]] != [stamp[0] for stamp in recorded["images"]]:
        differing.append("other images")
    if before["labels"] != recorded["labels"]:
        differing.append("other labels")
    if differing:
        raise DataError(
            f"{crops.folder}: these crops were made with {', '.join(differing)}; move the folder away, or use the same "
            "values again"
        )
    # Deleted before the record changes, so that a run killed in between leaves no crop of the old image.
    for index, (old, new) in enumerate(zip(before["images"], recorded["images"], strict=True)):
        if old != new:
            for number in range(CROPS_PER_IMAGE * index, CROPS_PER_IMAGE * (index + 1)):
                crops.image(split, number).unlink(missing_ok=True)
                crops.label(split, number).unlink(missing_ok=True)
    splits = {**found["splits"], split: recorded}
    write_text_atomically(crops.record, json.dumps({"parameters": parameters, "splits": splits}))


def _stamp(dataset: SegmentationDataset, index: int) -> list[Any]:
    """Name of an image, and size and time of its files."""
    paths = (dataset.image_path(index), dataset.label_path(index))
    status = [path.stat() for path in paths if path is not None]
    return [dataset.name(index), *(value for file in status for value in (file.st_size, file.st_mtime_ns))]
