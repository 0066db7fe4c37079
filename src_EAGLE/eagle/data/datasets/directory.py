"""Your own images in STEGO's ``directory`` layout, with or without labels.

``<root>/imgs/{train,val}/NAME.jpg`` and, optionally, ``<root>/labels/{train,val}/NAME.png`` (uint8 class ids,
255 = void) and ``<root>/classes.txt`` (one class name per line; line number, from 0, = id).
"""

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from eagle.data.datasets.base import VOID, Classes, SegmentationDataset, read_names
from eagle.data.images import image_files, read_label
from eagle.data.labels import distinct_palette
from eagle.errors import ConfigError, DataError

VOID_ID = 255


class DirectoryDataset(SegmentationDataset):
    """One split of a folder of images; ``n_classes`` None takes the number of lines of ``classes.txt``.

    Raises:
        DataError: a folder is missing or empty, two images share a name, or a label is missing.
        ConfigError: the number of classes is missing or contradicts ``classes.txt``, or a class name repeats.
    """

    def __init__(self, root: Path, split: str, n_classes: int | None = None) -> None:
        images, classes = _images(root, split), directory_classes(root, n_classes)
        label_folder = root / "labels" / split
        labels = _matching_labels(images, label_folder) if label_folder.is_dir() else None
        super().__init__(classes, images, labels)

    def class_ids(self, path: Path) -> np.ndarray:
        """Class ids; raises DataError for an id that is neither a class nor void (255)."""
        label = read_label(path)
        unknown = np.unique(label[(label >= len(self.classes)) & (label != VOID_ID) | (label < 0)])
        if unknown.size:
            raise DataError(
                f"{path}: label id {unknown[0]} is out of range: {len(self.classes)} classes have ids 0 to "
                f"{len(self.classes) - 1}, void is {VOID_ID}"
            )
        return np.where(label == VOID_ID, VOID, label)


def directory_classes(root: Path, n_classes: int | None) -> Classes:
    """Classes named in ``classes.txt``, or else numbered; raises ConfigError like DirectoryDataset."""
    listing = root / "classes.txt"
    names = read_names(listing) if listing.is_file() else []
    if n_classes is None and not names:
        raise ConfigError(f"dir_dataset_n_classes: set it to the number of classes, or list their names in {listing}")
    if n_classes is not None and names and n_classes != len(names):
        raise ConfigError(
            f"dir_dataset_n_classes: {n_classes}, but {listing} names {len(names)} classes; leave the key out"
        )
    if max(n_classes or 0, len(names)) > VOID_ID:
        raise ConfigError(
            f"{root}: {n_classes or len(names)} classes; at most {VOID_ID} are possible, because id {VOID_ID} is void"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"{listing}: names {repeated[0]!r} more than once; class names must be unique")
    names = names or [f"class {i}" for i in range(n_classes or 0)]
    return Classes(tuple(names), distinct_palette(len(names)))


def _images(root: Path, split: str) -> list[Path]:
    folder = root / "imgs" / split
    if not folder.is_dir():
        layout = "a directory dataset has imgs/train and imgs/val below <pytorch_data_dir>/<dir_dataset_name>"
        raise DataError(f"{folder}: no such folder; {layout}")
    images = list(_files_by_stem(image_files(folder)).values())
    if not images:
        raise DataError(f"{folder}: contains no images")
    return images


def _files_by_stem(files: list[Path]) -> dict[str, Path]:
    """Files by stem in Unicode NFC (macOS stores "ü" as two characters); raises DataError if two share a name."""
    found: dict[str, Path] = {}
    pairs = [(path, found.setdefault(_nfc_stem(path), path)) for path in files]
    if repeated := [(path, first) for path, first in pairs if first != path]:
        path, first = repeated[0]
        count = f"{len(repeated)} such pairs" if repeated[1:] else "one such pair"
        raise DataError(f"{path}: same name as {first.name} ({count}); labels are matched by name, so rename one")
    return found


def _nfc_stem(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem)


def _matching_labels(images: list[Path], folder: Path) -> list[Path]:
    labels = _files_by_stem(image_files(folder))
    if missing := [path for path in images if _nfc_stem(path) not in labels]:
        raise DataError(
            f"{missing[0]}: no label {folder / missing[0].stem}.png ({len(missing)} of {len(images)} images lack one); "
            f"add it, or remove {folder} to train without labels"
        )
    return [labels[_nfc_stem(path)] for path in images]
