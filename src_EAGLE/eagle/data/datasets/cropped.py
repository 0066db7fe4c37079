"""Dataset of the crops written by ``crop_datasets.py``."""

import logging
from pathlib import Path

import numpy as np

from eagle.data.crops.manifest import CropFiles, CropManifest, CropSource, JpegSettings
from eagle.data.datasets.archive_files import missing_files
from eagle.data.datasets.base import Classes, ImageFileDataset
from eagle.data.images import read_label
from eagle.errors import DataError

logger = logging.getLogger(__name__)


class CroppedDataset(ImageFileDataset):
    """One split of a crop set, ordered by crop number.

    Args:
        source: dataset and crop parameters.
        root: pytorch_data_dir.
        split: "train" or "val".
        classes: the dataset's classes.

    Raises:
        DataError: the crops do not exist, are incomplete or differ in number from their manifest; the message gives
            the command that completes them.
    """

    def __init__(self, source: CropSource, root: Path, split: str, classes: Classes) -> None:
        self.classes = classes
        self._files = CropFiles(source.folder(root), split)
        remedy = f"run {source.command(root)}"
        manifest = CropManifest(self._files.folder)
        record = manifest.read().get("splits", {}).get(split, {})
        if not record.get("complete"):
            state = "are incomplete" if self._files.images.is_dir() else "do not exist"
            raise DataError(f"{self._files.images}: the crops {state}; {remedy}")
        jpeg, released = manifest.jpeg(), JpegSettings()
        if jpeg != released:
            logger.warning("%s: these crops have %s; the released runs used %s", self._files.folder, jpeg, released)
        self._n_crops = record["crops"]
        self.has_labels = record["labels"]
        folders = {self._files.images: "jpg"} | ({self._files.labels: "png"} if self.has_labels else {})
        for folder, suffix in folders.items():
            if missing := missing_files(folder, (f"{i}.{suffix}" for i in range(self._n_crops))):
                raise DataError(f"{missing[0]}: no such file ({len(missing)} of {self._n_crops} are missing); {remedy}")

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
