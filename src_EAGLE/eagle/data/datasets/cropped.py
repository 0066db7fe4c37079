"""Training crops, five of each image: cutting them, and the dataset of those that we, the released code or STEGO cut.

Layout and numbering follow STEGO: ``<pytorch_data_dir>/cropped/<dataset>_<type>_crop_<ratio>/{img,label}/<split>/``;
crop c of image i is file 5·i + c. We add ``crops.json`` beside ``img``, with the parameters
and, for each image, its name and the size and time of its files.
"""

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.data.datasets.base import SPLITS, Classes, SegmentationDataset, missing_files, read_sample
from eagle.data.images import read_label
from eagle.errors import ConfigError, DataError
from eagle.files import remove_unfinished, write_text_atomically, written_atomically
from eagle.processes import usable_cores

CROPS_PER_IMAGE = 5
# Left, top, right and bottom in pixels; right and bottom are exclusive, as in PIL's ``crop``.
Box = tuple[int, int, int, int]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropSet:
    """The crops of one dataset, of one type and ratio.

    Attributes:
        folder: where they lie.
        command: command that makes or completes them.
    """

    folder: Path
    command: str

    @property
    def record(self) -> Path:
        """File with the parameters and the images."""
        return self.folder / "crops.json"

    def image(self, split: str, number: int) -> Path:
        """File of an image crop."""
        return self.folder / "img" / split / f"{number}.jpg"

    def label(self, split: str, number: int) -> Path:
        """File of a label crop (class id + 1, 0 for void); absent for a dataset without labels."""
        return self.folder / "label" / split / f"{number}.png"

    def missing(self, split: str, n_crops: int, labels: bool) -> list[Path]:
        """Those files of a split's first ``n_crops`` crops that do not exist."""
        kinds = {"img": "jpg", "label": "png"} if labels else {"img": "jpg"}
        wanted = {kind: [f"{number}.{suffix}" for number in range(n_crops)] for kind, suffix in kinds.items()}
        return [path for kind, names in wanted.items() for path in missing_files(self.folder / kind / split, names)]

    def read_record(self) -> dict[str, Any]:
        """``parameters`` and, by split, ``labels`` and ``images``; both empty without a record.

        Raises:
            DataError: the file is no such record.
        """
        if not self.record.exists():
            return {"parameters": {}, "splits": {}}
        try:
            content = json.loads(self.record.read_text(encoding="utf-8"))
            splits = {
                name: {key: split[key] for key in ("labels", "images")} for name, split in content["splits"].items()
            }
            return {"parameters": dict(content["parameters"]), "splits": splits}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{self.record}: not a record of crops; move {self.folder} away and crop again") from error


class CroppedDataset(SegmentationDataset):
    """One split of a crop set, ordered by crop number.

    Crops without our record, such as those of the released code and of STEGO, are counted and read as they are.

    Raises:
        DataError: the crops do not exist or are incomplete; the message gives the command that completes them.
    """

    def __init__(self, crops: CropSet, split: str, classes: Classes) -> None:
        super().__init__(classes, (), None)  # paths of all crops would take 150 MB; they are made when asked for
        self._crops, self._split = crops, split
        if recorded := crops.read_record()["splits"].get(split):
            n_crops, self.has_labels = CROPS_PER_IMAGE * len(recorded["images"]), recorded["labels"]
        else:
            folder = crops.image(split, 0).parent
            names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208
            n_crops = sum(name.endswith(".jpg") and name[:-4].isdecimal() for name in names)
            self.has_labels = crops.label(split, 0).parent.is_dir()
            if not n_crops:
                raise DataError(f"{folder}: the crops do not exist; run {crops.command}")
            logger.info("%s: %d crops found, without the record of crop_datasets.py", folder, n_crops)
        if missing := crops.missing(split, n_crops, self.has_labels):
            count = f"{len(missing)} of {n_crops * (1 + self.has_labels)} are missing"
            raise DataError(f"{missing[0]}: no such file ({count}); run {crops.command}")
        self._places = range(n_crops)

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._crops.image(self._split, self._places[index])

    def label_path(self, index: int) -> Path | None:
        """The label map's file; None without one."""
        return self._crops.label(self._split, self._places[index]) if self.has_labels else None

    def class_ids(self, path: Path) -> np.ndarray:
        """Class ids of the crop; raises DataError for an id out of range."""
        label, n_classes = read_label(path) - 1, len(self.classes)
        if label.max() >= n_classes:
            found = f"contains {label.max() + 1}, but {n_classes} classes are stored as 1 to {n_classes}"
            raise DataError(f"{path}: {found}; remove the file and crop again")
        return label


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
    images = [_stamp(dataset, index) for index in range(len(dataset))]
    before = found["splits"].get(split, {"images": images})["images"]
    differing = [f"{name} {then[name]} instead of {value}" for name, value in parameters.items() if then[name] != value]
    if [stamp[0] for stamp in before] != [stamp[0] for stamp in images]:
        differing.append("other images")
    if differing:
        raise DataError(
            f"{crops.folder}: these crops were made with {', '.join(differing)}; move the folder away, or use the same "
            "values again"
        )
    # Deleted before the record changes, so that a run killed in between leaves no crop of the old image.
    for index, (old, new) in enumerate(zip(before, images, strict=True)):
        if old != new:
            for number in range(CROPS_PER_IMAGE * index, CROPS_PER_IMAGE * (index + 1)):
                crops.image(split, number).unlink(missing_ok=True)
                crops.label(split, number).unlink(missing_ok=True)
    splits = {**found["splits"], split: {"labels": dataset.has_labels, "images": images}}
    write_text_atomically(crops.record, json.dumps({"parameters": parameters, "splits": splits}))


def _stamp(dataset: SegmentationDataset, index: int) -> list[Any]:
    """Name of an image, and size and time of its files."""
    paths = (dataset.image_path(index), dataset.label_path(index))
    status = [path.stat() for path in paths if path is not None]
    return [dataset.name(index), *(value for file in status for value in (file.st_size, file.st_mtime_ns))]
