"""Your own images in STEGO's ``directory`` layout, with or without labels.

``<root>/imgs/{train,val}/NAME.jpg`` and, optionally, ``<root>/labels/{train,val}/NAME.png`` (uint8 class ids,
255 = void) and ``<root>/classes.txt`` (one class name per line; line number, from 0, = id).
"""

import unicodedata
from collections import Counter
from pathlib import Path

from eagle.data.datasets.base import VOID_ID, Classes, SegmentationDataset, name_lines
from eagle.data.images import image_files
from eagle.data.labels import distinct_palette
from eagle.errors import ConfigError, DataError


class DirectoryDataset(SegmentationDataset):
    """One split of a folder of images; ``n_classes`` None takes the number of lines of ``classes.txt``.

    Raises:
        DataError: a folder is missing or empty, two images share a name, or a label is missing.
        ConfigError: the number of classes is missing or contradicts ``classes.txt``, or a class name repeats.
    """

    def __init__(self, root: Path, split: str, n_classes: int | None = None) -> None:
        folder, label_folder = root / "imgs" / split, root / "labels" / split
        if not folder.is_dir():
            layout = "a directory dataset has imgs/train and imgs/val below <pytorch_data_dir>/<dir_dataset_name>"
            raise DataError(f"{folder}: no such folder; {layout}")
        images, labels = _files_by_stem(folder), None
        if not images:
            raise DataError(f"{folder}: contains no images")
        if label_folder.is_dir():
            labels = _files_by_stem(label_folder)
            if missing := [stem for stem in images if stem not in labels]:
                raise DataError(
                    f"{images[missing[0]]}: no label {label_folder / missing[0]}.png ({len(missing)} of {len(images)} "
                    f"images lack one); add it, or remove {label_folder} to train without labels"
                )
        label_files = None if labels is None else [labels[stem] for stem in images]
        super().__init__(directory_classes(root, n_classes), list(images.values()), label_files)


def directory_classes(root: Path, n_classes: int | None) -> Classes:
    """Classes named in ``classes.txt``, or else numbered; raises ConfigError like DirectoryDataset."""
    listing = root / "classes.txt"
    if listing.is_file():
        names = name_lines(listing)
        while names and not names[-1]:
            names.pop()
        if "" in names:
            raise ConfigError(
                f"{listing}: line {names.index('') + 1} is empty; a line's number is its class id, so name it"
            )
    else:
        names = [f"class {i}" for i in range(n_classes or 0)]
    if not names:
        raise ConfigError(f"dir_dataset_n_classes: set it to the number of classes, or list their names in {listing}")
    if n_classes not in (None, len(names)):
        raise ConfigError(
            f"dir_dataset_n_classes: {n_classes}, but {listing} names {len(names)} classes; leave the key out"
        )
    if len(names) > VOID_ID:
        raise ConfigError(f"{root}: {len(names)} classes; at most {VOID_ID} are possible, because id {VOID_ID} is void")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"{listing}: names {repeated[0]!r} more than once; class names must be unique")
    return Classes(tuple(names), distinct_palette(len(names)))


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """Image files by stem in Unicode NFC (macOS stores "ü" as two characters); raises DataError if two share one."""
    found: dict[str, Path] = {}
    for path in image_files(folder):
        if (first := found.setdefault(unicodedata.normalize("NFC", path.stem), path)) != path:
            raise DataError(f"{path}: same name as {first.name}; labels are matched by name, so rename one")
    return found
