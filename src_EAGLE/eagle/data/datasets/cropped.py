"""The crops of a dataset that ``crop_datasets.py`` made, as a dataset of their own."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.crops.manifest import CropFiles, CropManifest, CropSource, JpegSettings
from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.images import read_image, read_label
from eagle.errors import DataError

logger = logging.getLogger(__name__)


class CroppedDataset(SegmentationDataset):
    """One split of a set of crops, in the order of their numbers.

    Args:
        source: which crops.
        root: pytorch_data_dir.
        split: "train" or "val".
        classes: the dataset's.

    Raises:
        DataError: the crops are not there, not whole or not as many as their manifest says; the message has the
            command that makes or finishes them.
    """

    def __init__(self, source: CropSource, root: Path, split: str, classes: Classes) -> None:
        self.classes = classes
        self._files = CropFiles(source.folder(root), split)
        remedy = f"run {source.command(root)}"
        manifest = CropManifest(self._files.folder)
        record = manifest.read().get("splits", {}).get(split, {})
        if not record.get("complete"):
            state = "are not complete" if self._files.images.is_dir() else "do not exist"
            raise DataError(f"{self._files.images}: the crops {state}; {remedy}")
        if manifest.jpeg() != JpegSettings():
            logger.warning(
                "%s: these crops have %s; released runs saw %s", self._files.folder, manifest.jpeg(), JpegSettings()
            )
        self._n_crops = record["crops"]
        self.has_labels = record["labels"]
        self._require(self._files.images, "jpg", remedy)
        if self.has_labels:
            self._require(self._files.labels, "png", remedy)

    def __len__(self) -> int:
        return self._n_crops

    def name(self, index: int) -> str:
        """The crop's number."""
        return str(index)

    def image(self, index: int) -> Image.Image:
        """The RGB crop."""
        return read_image(self._files.image(index))

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._files.image(index)

    def label(self, index: int) -> np.ndarray:
        """Class ids of the crop; raises DataError for an id out of range."""
        path = self._files.label(index)
        label = read_label(path) - 1
        if label.max() >= len(self.classes):
            raise DataError(
                f"{path}: holds {label.max() + 1}, but {len(self.classes)} classes are stored as 1 to "
                f"{len(self.classes)}; remove the file and crop again"
            )
        return label

    def _require(self, folder: Path, suffix: str, remedy: str) -> None:
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        missing = [name for name in (f"{i}.{suffix}" for i in range(self._n_crops)) if name not in present]
        if missing:
            raise DataError(
                f"{folder / missing[0]}: no such file ({len(missing)} of {self._n_crops} are missing); {remedy}"
            )
