"""COCO-Stuff with 27, 15 or 3 classes, in the folder layout of STEGO's archive.

``cocostuff/images/{train2017,val2017}/ID.jpg``, ``cocostuff/annotations/{train2017,val2017}/ID.png`` (fine ids 0 to
181, 255 = void) and ``cocostuff/curated/{train2017,val2017}/LIST.txt``, the image ids of a split.

The 182 fine labels are those of Caesar et al., "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018. Their 27
supercategories are in the order of IIC, PiCIE and STEGO.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eagle.data.datasets.base import VOID, VOID_ID, Classes, SegmentationDataset, read_listing, require_files

# Colour and fine ids by name: saturated colours for things, typical colours for stuff. Fine ids are the values in the
# annotation PNGs, one less than the ids in the public list of labels.
SUPERCATEGORIES: dict[str, tuple[tuple[int, int, int], Iterable[int]]] = {
    "electronic": ((255, 0, 170), range(71, 77)),
    "appliance": ((170, 0, 255), range(77, 83)),
    "food-things": ((255, 85, 0), range(51, 61)),
    "furniture-things": ((192, 110, 60), range(61, 71)),
    "indoor": ((255, 170, 255), range(83, 91)),
    "kitchen": ((120, 60, 200), range(43, 51)),
    "accessory": ((255, 200, 0), range(25, 33)),
    "animal": ((255, 120, 120), range(15, 25)),
    "outdoor": ((250, 250, 60), range(9, 15)),
    "person": ((220, 20, 60), (0,)),
    "sports": ((0, 255, 200), range(33, 43)),
    "vehicle": ((20, 20, 170), range(1, 9)),
    "ceiling": ((225, 225, 205), (101, 102)),
    "floor": ((150, 120, 90), (100, *range(113, 118))),
    "food-stuff": ((230, 130, 30), (120, 121, 152, 169)),
    "furniture-stuff": ((130, 80, 45), (97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164)),
    "raw-material": ((165, 165, 175), (99, 131, 138, 142)),
    "textile": ((200, 130, 170), (91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167)),
    "wall": ((190, 180, 150), range(170, 177)),
    "window": ((170, 215, 230), (179, 180)),
    "building": ((100, 100, 110), (94, 95, 127, 150, 157, 165)),
    "ground": ((180, 155, 100), (110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158)),
    "plant": ((50, 140, 50), (93, 96, 118, 123, 128, 133, 141, 162, 168)),
    "sky": ((110, 180, 245), (105, 156)),
    "solid": ((95, 75, 65), (126, 134, 149, 159, 161, 181)),
    "structural": ((140, 150, 190), (98, 112, 137, 145, 163)),
    "water": ((30, 100, 200), (119, 147, 154, 177, 178)),
}

_ALL = tuple(SUPERCATEGORIES)
_STUFF = _ALL[_ALL.index("ceiling") :]
_FULL, _SEVENTH, _FEW = "Coco164kFull_Stuff_Coarse.txt", "Coco164kFull_Stuff_Coarse_7.txt", "Coco164kFew_Stuff_6.txt"


class Variant(NamedTuple):
    """A choice of classes, by class id (all other pixels are void), and the names of the image lists, by split."""

    supercategories: tuple[str, ...]
    lists: dict[str, str]


VARIANTS = {
    "cocostuff27": Variant(_ALL, {"train": _FULL, "val": _SEVENTH}),
    "cocostuff15": Variant(_STUFF, {"train": _SEVENTH, "val": _SEVENTH}),
    "cocostuff3": Variant(("sky", "plant", "ground"), {"train": _FEW, "val": _FEW}),
}


class CocoStuff(SegmentationDataset):
    """One split of a key of ``VARIANTS``; raises DataError if the list of images or one of its files is missing."""

    def __init__(self, root: Path, split: str, variant: str) -> None:
        class_ids = {name: class_id for class_id, name in enumerate(VARIANTS[variant].supercategories)}
        fine = {i: class_ids.get(name, VOID) for name, (_, fine_ids) in SUPERCATEGORIES.items() for i in fine_ids}
        folder = f"{split}2017"
        ids = read_listing(root, root / "curated" / folder / VARIANTS[variant].lists[split])
        images = [root / "images" / folder / f"{image_id}.jpg" for image_id in ids]
        labels = [root / "annotations" / folder / f"{image_id}.png" for image_id in ids]
        require_files(root, [*images, *labels])
        super().__init__(cocostuff_classes(variant), images, labels, {**fine, VOID_ID: VOID})


def cocostuff_classes(variant: str) -> Classes:
    """Class names and palette of a variant."""
    names = VARIANTS[variant].supercategories
    return Classes(names, np.array([SUPERCATEGORIES[name][0] for name in names], dtype=np.uint8))
