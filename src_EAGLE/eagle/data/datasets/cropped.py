"""Crops written by ``crop_datasets.py``, by the released code or by STEGO: their folder, and the dataset of them.

Layout and numbering follow STEGO: ``<pytorch_data_dir>/cropped/<dataset>_<type>_crop_<ratio>/{img,label}/<split>/``;
crop c of image i is file 5·i + c. We add ``crops.json`` beside ``img``, with the parameters
and, for each image, its name and the size and time of its files.
"""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eagle.data.datasets.base import Classes, ImageFileDataset, missing_files
from eagle.data.images import read_label
from eagle.errors import DataError

CROPS_PER_IMAGE = 5
# The released code's settings, which are Pillow's defaults.
RELEASED_JPEG = {"jpeg_quality": 75, "jpeg_subsampling": "4:2:0"}

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
        folders = [(self.folder / kind / split, suffix) for kind, suffix in kinds.items()]
        return [
            p for folder, suffix in folders for p in missing_files(folder, (f"{i}.{suffix}" for i in range(n_crops)))
        ]

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


class CroppedDataset(ImageFileDataset):
    """One split of a crop set, ordered by crop number.

    Crops without our record, such as those of the released code and of STEGO, are counted and read as they are.

    Raises:
        DataError: the crops do not exist or are incomplete; the message gives the command that completes them.
    """

    def __init__(self, crops: CropSet, split: str, classes: Classes) -> None:
        super().__init__(classes, (), None)  # paths of all crops would take 150 MB; they are made when asked for
        self._crops, self._split = crops, split
        record = crops.read_record()
        if recorded := record["splits"].get(split):
            self._n_crops, self.has_labels = CROPS_PER_IMAGE * len(recorded["images"]), recorded["labels"]
            jpeg = {name: record["parameters"].get(name) for name in RELEASED_JPEG}
            if jpeg != RELEASED_JPEG:
                settings = [f"JPEG quality {q}, subsampling {s}" for q, s in (jpeg.values(), RELEASED_JPEG.values())]
                logger.warning("%s: these crops have %s; the released runs used %s", crops.folder, *settings)
        else:
            folder = crops.image(split, 0).parent
            names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208
            self._n_crops = sum(name.endswith(".jpg") and name[:-4].isdecimal() for name in names)
            self.has_labels = crops.label(split, 0).parent.is_dir()
            if not self._n_crops:
                raise DataError(f"{folder}: the crops do not exist; run {crops.command}")
            logger.info("%s: %d crops found, without the record of crop_datasets.py", folder, self._n_crops)
        if missing := crops.missing(split, self._n_crops, self.has_labels):
            count = f"{len(missing)} of {self._n_crops * (1 + self.has_labels)} are missing"
            raise DataError(f"{missing[0]}: no such file ({count}); run {crops.command}")

    def __len__(self) -> int:
        return self._n_crops

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._crops.image(self._split, index)

    def label_path(self, index: int) -> Path | None:
        """The label map's file; None without one."""
        return self._crops.label(self._split, index) if self.has_labels else None

    def class_ids(self, path: Path) -> np.ndarray:
        """Class ids of the crop; raises DataError for an id out of range."""
        label, n_classes = read_label(path) - 1, len(self.classes)
        if label.max() >= n_classes:
            found = f"contains {label.max() + 1}, but {n_classes} classes are stored as 1 to {n_classes}"
            raise DataError(f"{path}: {found}; remove the file and crop again")
        return label
