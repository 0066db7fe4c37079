"""Crops written by ``crop_datasets.py``, by the released code or by STEGO: their folder, and the dataset of them.

Layout and numbering follow STEGO: ``<pytorch_data_dir>/cropped/<dataset>_<type>_crop_<ratio>/{img,label}/<split>/``;
crop c of image i is file 5·i + c. We add ``crops.json`` beside ``img``, which holds the parameters and, for each image,
its name and the size and time of its files.
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
RECORD = "crops.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JpegSettings:
    """JPEG settings of crops; the defaults are those of the released code (Pillow's defaults).

    Attributes:
        jpeg_quality: 1 to 100.
        jpeg_subsampling: chroma subsampling, "4:4:4" (none), "4:2:2" or "4:2:0".
    """

    jpeg_quality: int = 75
    jpeg_subsampling: str = "4:2:0"

    def __str__(self) -> str:
        return f"JPEG quality {self.jpeg_quality}, subsampling {self.jpeg_subsampling}"


@dataclass(frozen=True)
class CropSet:
    """The crops of one dataset, of one type and ratio.

    Attributes:
        root: pytorch_data_dir.
        dataset_name: name of the dataset in the catalog.
        dataset_label: name used in the crops' folder: dataset_name, or a directory dataset's folder.
        n_classes: dir_dataset_n_classes.
        crop_type: "five" or "random".
        crop_ratio: crop side divided by image side.
    """

    root: Path
    dataset_name: str
    dataset_label: str
    n_classes: int | None
    crop_type: str
    crop_ratio: float

    @property
    def folder(self) -> Path:
        """Folder of the crops."""
        return self.root / "cropped" / f"{self.dataset_label}_{self.crop_type}_crop_{self.crop_ratio}"

    @property
    def command(self) -> str:
        """Command that makes or completes the crops."""
        directory = "" if self.dataset_name != "directory" else f" dir_dataset_name={self.dataset_label}"
        classes = "" if self.n_classes is None else f" dir_dataset_n_classes={self.n_classes}"
        return (
            f"`python crop_datasets.py dataset_name={self.dataset_name}{directory}{classes} "
            f"crop_type={self.crop_type} crop_ratio={self.crop_ratio} pytorch_data_dir={self.root}`"
        )

    def images(self, split: str) -> Path:
        """Folder of a split's image crops."""
        return self.folder / "img" / split

    def labels(self, split: str) -> Path:
        """Folder of a split's label crops (class id + 1, 0 for void); absent for a dataset without labels."""
        return self.folder / "label" / split

    def image(self, split: str, number: int) -> Path:
        """File of an image crop."""
        return self.images(split) / f"{number}.jpg"

    def label(self, split: str, number: int) -> Path:
        """File of a label crop."""
        return self.labels(split) / f"{number}.png"

    def read_record(self) -> dict[str, Any]:
        """Read ``crops.json``.

        Returns:
            ``parameters`` and, by split, ``labels`` and ``images``; an empty dict without a record.

        Raises:
            DataError: the file is no such record.
        """
        path = self.folder / RECORD
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            parameters, splits = dict(content["parameters"]), dict(content["splits"])
            JpegSettings(int(parameters["jpeg_quality"]), parameters["jpeg_subsampling"])
            return {"parameters": parameters, "splits": splits}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: not a record of crops; move {path.parent} away and crop again") from error


class CroppedDataset(ImageFileDataset):
    """One split of a crop set, ordered by crop number.

    Crops without our record, such as those of the released code and of STEGO, are counted and read as they are.

    Args:
        crops: the crop set.
        split: "train" or "val".
        classes: the dataset's classes.

    Raises:
        DataError: the crops do not exist or are incomplete; the message gives the command that completes them.
    """

    def __init__(self, crops: CropSet, split: str, classes: Classes) -> None:
        super().__init__(classes, (), None)  # paths of all crops would take 150 MB; they are made when asked for
        self._crops = crops
        self._split = split
        record = crops.read_record()
        recorded = record.get("splits", {}).get(split)
        if recorded is None:
            self._n_crops, self.has_labels = self._found_without_record()
        else:
            _warn_unless_released(crops, record["parameters"])
            self._n_crops = CROPS_PER_IMAGE * len(recorded["images"])
            self.has_labels = recorded["labels"]
        folders = {crops.images(split): "jpg"} | ({crops.labels(split): "png"} if self.has_labels else {})
        for folder, suffix in folders.items():
            if missing := missing_files(folder, (f"{i}.{suffix}" for i in range(self._n_crops))):
                raise DataError(
                    f"{missing[0]}: no such file ({len(missing)} of {self._n_crops} are missing); run {crops.command}"
                )

    def _found_without_record(self) -> tuple[int, bool]:
        """Number of crops, and whether they have labels, of a folder that crop_datasets.py has not recorded."""
        folder = self._crops.images(self._split)
        names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208
        n_crops = sum(name.endswith(".jpg") and name[:-4].isdecimal() for name in names)
        if not n_crops:
            raise DataError(f"{folder}: the crops do not exist; run {self._crops.command}")
        logger.info("%s: %d crops found, without the record of crop_datasets.py", folder, n_crops)
        return n_crops, self._crops.labels(self._split).is_dir()

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
        label = read_label(path) - 1
        if label.max() >= len(self.classes):
            raise DataError(
                f"{path}: contains {label.max() + 1}, but {len(self.classes)} classes are stored as 1 to "
                f"{len(self.classes)}; remove the file and crop again"
            )
        return label


def _warn_unless_released(crops: CropSet, parameters: dict[str, Any]) -> None:
    jpeg, released = JpegSettings(parameters["jpeg_quality"], parameters["jpeg_subsampling"]), JpegSettings()
    if jpeg != released:
        logger.warning("%s: these crops have %s; the released runs used %s", crops.folder, jpeg, released)
