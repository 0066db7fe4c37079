"""Training crops, five of each image: cutting them, and the dataset of those that we, the released code or STEGO cut.

Layout and numbering follow STEGO: ``<pytorch_data_dir>/cropped/<dataset>_<type>_crop_<ratio>/{img,label}/<split>/``;
crop c of image i is file 5·i + c. We add ``<split>.json`` beside ``img``, which says of what and how they were cut.
"""

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.data.datasets.base import SPLITS, VOID, Classes, SegmentationDataset, missing_files, read_sample
from eagle.errors import ConfigError, DataError
from eagle.files import remove_unfinished, write_text_atomically, written_atomically
from eagle.processes import usable_cores

CROPS_PER_IMAGE = 5
# Left, top, right and bottom in pixels; right and bottom are exclusive, as in PIL's ``crop``.
Box = tuple[int, int, int, int]

_SUFFIXES = {"img": ".jpg", "label": ".png"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropRecord:
    """What determines the crops of a split; ``names`` is the hash of the images' names."""

    n_images: int
    names: str
    labels: bool
    jpeg_quality: int
    seed: int | None


@dataclass(frozen=True)
class CropSet:
    """The crops of one dataset, of one type and ratio.

    Attributes:
        folder: where they lie.
        command: command that makes or completes them.
    """

    folder: Path
    command: str

    def file(self, kind: str, split: str, number: int) -> Path:
        """File of a crop; ``kind`` is "img", or "label" for its label map (class id + 1, 0 for void)."""
        return self.folder / kind / split / f"{number}{_SUFFIXES[kind]}"

    def missing(self, split: str, n_crops: int, labels: bool) -> list[Path]:
        """Those files of a split's first ``n_crops`` crops that do not exist."""
        missing: list[Path] = []
        for kind in _SUFFIXES if labels else ("img",):
            names = [f"{number}{_SUFFIXES[kind]}" for number in range(n_crops)]
            missing += missing_files(self.folder / kind / split, names)
        return missing

    def record_file(self, split: str) -> Path:
        """File of a split's record."""
        return self.folder / f"{split}.json"

    def record(self, split: str) -> CropRecord | None:
        """What ``crop_split`` recorded; None without a record. Raises DataError if the file is none."""
        file = self.record_file(split)
        if not file.exists():
            return None
        try:
            return CropRecord(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{file}: not a record of crops; move {self.folder} away and crop again") from error


class CroppedDataset(SegmentationDataset):
    """One split of a crop set, ordered by crop number.

    Crops without our record, such as those of the released code and of STEGO, are counted and read as they are.

    Raises:
        DataError: the crops do not exist or are incomplete; the message gives the command that completes them.
    """

    def __init__(self, crops: CropSet, split: str, classes: Classes) -> None:
        # Paths of all crops would take 150 MB; they are made when asked for.
        super().__init__(classes, (), None, {0: VOID, **{i + 1: i for i in range(len(classes))}})
        self._crops, self._split = crops, split
        if record := crops.record(split):
            n_crops, self.has_labels = CROPS_PER_IMAGE * record.n_images, record.labels
        else:
            folder = crops.folder / "img" / split
            names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208
            n_crops = sum(name.endswith(".jpg") and name[:-4].isdecimal() for name in names)
            self.has_labels = (crops.folder / "label" / split).is_dir()
            if not n_crops:
                raise DataError(f"{folder}: the crops do not exist; run {crops.command}")
            logger.info("%s: %d crops found, without the record of crop_datasets.py", folder, n_crops)
        if missing := crops.missing(split, n_crops, self.has_labels):
            count = f"{len(missing)} of {n_crops * (1 + self.has_labels)} are missing"
            raise DataError(f"{missing[0]}: no such file ({count}); run {crops.command}")
        self._places = range(n_crops)

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._crops.file("img", self._split, self._places[index])

    def label_path(self, index: int) -> Path | None:
        """The label map's file; None without one."""
        return self._crops.file("label", self._split, self._places[index]) if self.has_labels else None


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
        DataError: an image is broken, or the folder holds crops of other images, or made with other parameters.
    """
    seed = cfg.seed if cfg.crop_type == "random" else None
    labels = dataset.has_labels
    record = CropRecord(len(dataset), dataset.names_digest(), labels, cfg.jpeg_quality, seed)
    pairs = zip(asdict(crops.record(split) or record).items(), asdict(record).values(), strict=True)
    if differing := [f"{name} {then} instead of {now}" for (name, then), now in pairs if then != now]:
        raise DataError(
            f"{crops.folder}: these crops were made with {', '.join(differing)}; move the folder away, or use the same "
            "values again"
        )
    write_text_atomically(crops.record_file(split), json.dumps(asdict(record)))
    for kind in _SUFFIXES:
        remove_unfinished(crops.folder / kind / split)

    def is_outdated(index: int) -> bool:
        """Whether the image or its label map has changed since its last crop; unpacking cannot set back ctime."""
        crop = crops.file("label" if labels else "img", split, CROPS_PER_IMAGE * (index + 1) - 1)
        paths = (dataset.image_path(index), dataset.label_path(index))
        return crop.stat().st_ctime < max(path.stat().st_ctime for path in paths if path is not None)

    def crop_image(index: int) -> None:
        image, label = read_sample(dataset, index)
        rng = None if seed is None else np.random.default_rng((seed, SPLITS.index(split), index))
        stored_label = Image.fromarray((label + 1).astype(np.uint8))
        boxes = crop_boxes(image.width, image.height, cfg.crop_ratio, rng)
        for number, box in enumerate(boxes, CROPS_PER_IMAGE * index):
            with written_atomically(crops.file("img", split, number)) as temporary:
                image.crop(box).save(temporary, quality=cfg.jpeg_quality)
            if labels:
                with written_atomically(crops.file("label", split, number)) as temporary:
                    stored_label.crop(box).save(temporary)

    missing = {
        int(path.stem) // CROPS_PER_IMAGE for path in crops.missing(split, CROPS_PER_IMAGE * len(dataset), labels)
    }
    pending = [index for index in range(len(dataset)) if index in missing or is_outdated(index)]
    with ThreadPoolExecutor(cfg.num_processes or usable_cores()) as pool:  # Pillow releases the GIL
        list(tqdm(pool.map(crop_image, pending), f"{crops.folder.name} {split}", len(pending), unit="image"))
    return CROPS_PER_IMAGE * len(pending)
