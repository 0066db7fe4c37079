"""COCO-Stuff with 27, 15 or 3 classes, in the folder layout of STEGO's archive.

``cocostuff/images/{train2017,val2017}/ID.jpg``, ``cocostuff/annotations/{train2017,val2017}/ID.png`` (fine ids 0 to
181, 255 = void) and ``cocostuff/curated/{train2017,val2017}/LIST.txt``, the image ids of a split.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eagle.data.datasets.archive_files import read_listing, require_files
from eagle.data.datasets.base import VOID, Classes, ImageFileDataset
from eagle.data.datasets.cocostuff_labels import SUPERCATEGORIES, fine_labels, palette
from eagle.data.datasets.label_ids import IdTable
from eagle.data.images import read_label

_ALL = tuple(SUPERCATEGORIES)
_STUFF = _ALL[_ALL.index("ceiling") :]
_FULL, _SEVENTH, _FEW = "Coco164kFull_Stuff_Coarse.txt", "Coco164kFull_Stuff_Coarse_7.txt", "Coco164kFew_Stuff_6.txt"


@dataclass(frozen=True)
class Variant:
    """A choice of classes and image lists.

    Attributes:
        supercategories: class names by class id; all other pixels are void.
        lists: name of the file with the image ids, by split.
    """

    supercategories: tuple[str, ...]
    lists: dict[str, str]


VARIANTS = {
    "cocostuff27": Variant(_ALL, {"train": _FULL, "val": _SEVENTH}),
    "cocostuff15": Variant(_STUFF, {"train": _SEVENTH, "val": _SEVENTH}),
    "cocostuff3": Variant(("sky", "plant", "ground"), {"train": _FEW, "val": _FEW}),
}


class CocoStuff(ImageFileDataset):
    """One split of a variant.

    Args:
        root: the folder ``cocostuff``.
        split: "train" or "val".
        variant: a key of ``VARIANTS``.

    Raises:
        DataError: the list of images, an image or an annotation is missing.
    """

    has_labels = True

    def __init__(self, root: Path, split: str, variant: str) -> None:
        self.classes = cocostuff_classes(variant)
        self._to_class = _id_table(variant)
        self._folder = f"{split}2017"
        self._root = root
        self._ids = read_listing(root, root / "curated" / self._folder / VARIANTS[variant].lists[split])
        indices = range(len(self._ids))
        require_files(root, [path(index) for path in (self.image_path, self._label_path) for index in indices])

    def __len__(self) -> int:
        return len(self._ids)

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._root / "images" / self._folder / f"{self._ids[index]}.jpg"

    def label(self, index: int) -> np.ndarray:
        """Class ids; raises DataError for an unknown fine id."""
        path = self._label_path(index)
        return self._to_class(read_label(path), path)

    def _label_path(self, index: int) -> Path:
        return self._root / "annotations" / self._folder / f"{self._ids[index]}.png"


def cocostuff_classes(variant: str) -> Classes:
    """Class names and palette of a variant."""
    names = VARIANTS[variant].supercategories
    return Classes(names, palette(names))


def _id_table(variant: str) -> IdTable:
    class_of = {name: class_id for class_id, name in enumerate(VARIANTS[variant].supercategories)}
    fine = {value: class_of.get(supercategory, VOID) for value, (_, supercategory) in fine_labels().items()}
    return IdTable({**fine, 255: VOID})
