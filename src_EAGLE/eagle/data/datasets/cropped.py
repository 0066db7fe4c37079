"""Dataset of the crops written by ``crop_datasets.py``, by the released code or by STEGO."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from eagle.data.crops.manifest import CropFiles, CropManifest, CropSource, JpegSettings
from eagle.data.datasets.archive_files import missing_files
from eagle.data.datasets.base import Classes, ImageFileDataset
from eagle.data.images import read_label
from eagle.errors import DataError

logger = logging.getLogger(__name__)


class CroppedDataset(ImageFileDataset):
    """One split of a crop set, ordered by crop number.

    Crops without our record, such as those of the released code and of STEGO, are counted and read as they are.

    Args:
        source: dataset and crop parameters.
        root: pytorch_data_dir.
        split: "train" or "val".
        classes: the dataset's classes.

    Raises:
        DataError: the crops do not exist or are incomplete; the message gives the command that completes them.
    """

    def __init__(self, source: CropSource, root: Path, split: str, classes: Classes) -> None:
        self.classes = classes
        self._files = CropFiles(source.folder(root), split)
        remedy = f"run {source.command(root)}"
        manifest = CropManifest(self._files.folder)
        record = manifest.read().get("splits", {}).get(split)
        if record is None:
            record = self._found_without_record(remedy)
        elif not record.get("complete"):
            raise DataError(f"{self._files.images}: the crops are incomplete; {remedy}")
        else:
            _warn_unless_released(manifest)
        self._n_crops = record["crops"]
        self.has_labels = record["labels"]
        folders = {self._files.images: "jpg"} | ({self._files.labels: "png"} if self.has_labels else {})
        for folder, suffix in folders.items():
            if missing := missing_files(folder, (f"{i}.{suffix}" for i in range(self._n_crops))):
                raise DataError(f"{missing[0]}: no such file ({len(missing)} of {self._n_crops} are missing); {remedy}")

    def _found_without_record(self, remedy: str) -> dict[str, Any]:
        """Number of crops, and whether they have labels, of a folder that crop_datasets.py has not recorded."""
        names = os.listdir(self._files.images) if self._files.images.is_dir() else []  # noqa: PTH208
        n_crops = sum(name.endswith(".jpg") and name[:-4].isdecimal() for name in names)
        if not n_crops:
            raise DataError(f"{self._files.images}: the crops do not exist; {remedy}")
        logger.info("%s: %d crops found, without the record of crop_datasets.py", self._files.images, n_crops)
        return {"crops": n_crops, "labels": self._files.labels.is_dir()}

    def __len__(self) -> int:
        return self._n_crops

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._files.image(index)

    def label(self, index: int) -> np.ndarray:
        """Class ids of the crop; raises DataError for an id out of range."""
        path = self._files.label(index)
        label = read_label(path) - 1
        if label.max() >= len(self.classes):
            raise DataError(
                f"{path}: contains {label.max() + 1}, but {len(self.classes)} classes are stored as 1 to "
                f"{len(self.classes)}; remove the file and crop again"
            )
        return label


def _warn_unless_released(manifest: CropManifest) -> None:
    jpeg, released = manifest.jpeg(), JpegSettings()
    if jpeg != released:
        logger.warning("%s: these crops have %s; the released runs used %s", manifest.path.parent, jpeg, released)
