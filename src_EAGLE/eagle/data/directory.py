"""Anyone's images in STEGO's ``directory`` layout, with or without labels.

``<root>/imgs/{train,val}/NAME.jpg`` and, optionally, ``<root>/labels/{train,val}/NAME.png`` (uint8 class ids,
255 = void) and ``<root>/classes.txt`` (one class name a line, line number = id).
"""

from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.dataset import VOID, Classes, SegmentationDataset
from eagle.data.images import image_files, read_image, read_label
from eagle.data.palette import distinct_palette
from eagle.errors import ConfigError, DataError

VOID_ID = 255


class DirectoryDataset(SegmentationDataset):
    """One split of a folder of images.

    Args:
        root: folder that holds ``imgs`` and, optionally, ``labels`` and ``classes.txt``.
        split: "train" or "val".
        n_classes: number of classes; None takes the lines of ``classes.txt``.

    Raises:
        DataError: a folder is missing or empty, two images share a name, or a label is missing.
        ConfigError: the number of classes is not given or contradicts ``classes.txt``.
    """

    def __init__(self, root: Path, split: str, n_classes: int | None = None) -> None:
        self._images = _images(root, split)
        self.classes = directory_classes(root, n_classes)
        label_folder = root / "labels" / split
        self.has_labels = label_folder.is_dir()
        self._labels = _matching_labels(self._images, label_folder) if self.has_labels else []

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """The file's stem."""
        return self._images[index].stem

    def image(self, index: int) -> Image.Image:
        """The RGB image."""
        return read_image(self._images[index])

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._images[index]

    def label(self, index: int) -> np.ndarray:
        """Class ids; raises DataError for an id that is neither a class nor void."""
        path = self._labels[index]
        label = read_label(path)
        unknown = np.unique(label[(label >= len(self.classes)) & (label != VOID_ID) | (label < 0)])
        if unknown.size:
            raise DataError(
                f"{path}: label id {unknown[0]} is out of range: {len(self.classes)} classes have ids 0 to "
                f"{len(self.classes) - 1}, void is {VOID_ID}"
            )
        return np.where(label == VOID_ID, VOID, label)


def directory_classes(root: Path, n_classes: int | None) -> Classes:
    """Class names of ``classes.txt``, or numbered ones; raises ConfigError as DirectoryDataset does."""
    listing = root / "classes.txt"
    names = [line.strip() for line in listing.read_text().splitlines() if line.strip()] if listing.is_file() else []
    if n_classes is None and not names:
        raise ConfigError(f"dir_dataset_n_classes: set it to the number of classes, or list their names in {listing}")
    if n_classes is not None and names and n_classes != len(names):
        raise ConfigError(f"dir_dataset_n_classes: {n_classes}, but {listing} names {len(names)} classes")
    names = names or [f"class {i}" for i in range(n_classes or 0)]
    return Classes(tuple(names), distinct_palette(len(names)))


def _images(root: Path, split: str) -> list[Path]:
    folder = root / "imgs" / split
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; a directory dataset has imgs/train and imgs/val below "
            "<pytorch_data_dir>/<dir_dataset_name>"
        )
    images = image_files(folder)
    if not images:
        raise DataError(f"{folder}: holds no images")
    seen: dict[str, Path] = {}
    for path in images:
        if path.stem in seen:
            raise DataError(
                f"{path}: has the name of {seen[path.stem].name}; labels are matched by name, so rename one"
            )
        seen[path.stem] = path
    return images


def _matching_labels(images: list[Path], folder: Path) -> list[Path]:
    by_stem = {path.stem: path for path in image_files(folder)}
    missing = [path for path in images if path.stem not in by_stem]
    if missing:
        raise DataError(
            f"{missing[0]}: image without label, there is no {folder / missing[0].stem}.png ({len(missing)} of "
            f"{len(images)} images lack one); add it, or remove {folder} to train without labels"
        )
    return [by_stem[path.stem] for path in images]
