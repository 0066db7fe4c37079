"""COCO-Stuff with 27, 15 or 3 classes, in the folder layout of STEGO's archive.

``cocostuff/images/{train2017,val2017}/ID.jpg``, ``cocostuff/annotations/{train2017,val2017}/ID.png`` (fine ids 0 to
181, 255 = void) and ``cocostuff/curated/{train2017,val2017}/LIST.txt``, the image ids of a split.

The 182 fine labels are those of Caesar et al., "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018. Their 27
supercategories are in the order of IIC, PiCIE and STEGO.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eagle.data.datasets.base import VOID, Classes, IdTable, ImageFileDataset, read_listing, require_files
from eagle.data.images import read_label

# Numbers are the values in the annotation PNGs, one less than the ids in the public list of labels.
SUPERCATEGORIES = {
    "electronic": "71 tv, 72 laptop, 73 mouse, 74 remote, 75 keyboard, 76 cell phone",
    "appliance": "77 microwave, 78 oven, 79 toaster, 80 sink, 81 refrigerator, 82 blender",
    "food-things": (
        "51 banana, 52 apple, 53 sandwich, 54 orange, 55 broccoli, 56 carrot, 57 hot dog, 58 pizza, 59 donut, 60 cake"
    ),
    "furniture-things": (
        "61 chair, 62 couch, 63 potted plant, 64 bed, 65 mirror, 66 dining table, 67 window, 68 desk, 69 toilet, "
        "70 door"
    ),
    "indoor": "83 book, 84 clock, 85 vase, 86 scissors, 87 teddy bear, 88 hair drier, 89 toothbrush, 90 hair brush",
    "kitchen": "43 bottle, 44 plate, 45 wine glass, 46 cup, 47 fork, 48 knife, 49 spoon, 50 bowl",
    "accessory": "25 hat, 26 backpack, 27 umbrella, 28 shoe, 29 eye glasses, 30 handbag, 31 tie, 32 suitcase",
    "animal": "15 bird, 16 cat, 17 dog, 18 horse, 19 sheep, 20 cow, 21 elephant, 22 bear, 23 zebra, 24 giraffe",
    "outdoor": "9 traffic light, 10 fire hydrant, 11 street sign, 12 stop sign, 13 parking meter, 14 bench",
    "person": "0 person",
    "sports": (
        "33 frisbee, 34 skis, 35 snowboard, 36 sports ball, 37 kite, 38 baseball bat, 39 baseball glove, "
        "40 skateboard, 41 surfboard, 42 tennis racket"
    ),
    "vehicle": "1 bicycle, 2 car, 3 motorcycle, 4 airplane, 5 bus, 6 train, 7 truck, 8 boat",
    "ceiling": "101 ceiling-other, 102 ceiling-tile",
    "floor": "100 carpet, 113 floor-marble, 114 floor-other, 115 floor-stone, 116 floor-tile, 117 floor-wood",
    "food-stuff": "120 food-other, 121 fruit, 152 salad, 169 vegetable",
    "furniture-stuff": (
        "97 cabinet, 106 counter, 107 cupboard, 109 desk-stuff, 111 door-stuff, 122 furniture-other, 129 light, "
        "132 mirror-stuff, 155 shelf, 160 stairs, 164 table"
    ),
    "raw-material": "99 cardboard, 131 metal, 138 paper, 142 plastic",
    "textile": (
        "91 banner, 92 blanket, 103 cloth, 104 clothes, 108 curtain, 130 mat, 136 napkin, 140 pillow, 151 rug, "
        "166 textile-other, 167 towel"
    ),
    "wall": (
        "170 wall-brick, 171 wall-concrete, 172 wall-other, 173 wall-panel, 174 wall-stone, 175 wall-tile, "
        "176 wall-wood"
    ),
    "window": "179 window-blind, 180 window-other",
    "building": "94 bridge, 95 building-other, 127 house, 150 roof, 157 skyscraper, 165 tent",
    "ground": (
        "110 dirt, 124 gravel, 125 ground-other, 135 mud, 139 pavement, 143 platform, 144 playingfield, 146 railroad, "
        "148 road, 153 sand, 158 snow"
    ),
    "plant": "93 branch, 96 bush, 118 flower, 123 grass, 128 leaves, 133 moss, 141 plant-other, 162 straw, 168 tree",
    "sky": "105 clouds, 156 sky-other",
    "solid": "126 hill, 134 mountain, 149 rock, 159 solid-other, 161 stone, 181 wood",
    "structural": "98 cage, 112 fence, 137 net, 145 railing, 163 structural-other",
    "water": "119 fog, 147 river, 154 sea, 177 water-other, 178 waterdrops",
}

# Saturated colours for things, typical colours for stuff.
COLORS = {
    "electronic": (255, 0, 170),
    "appliance": (170, 0, 255),
    "food-things": (255, 85, 0),
    "furniture-things": (192, 110, 60),
    "indoor": (255, 170, 255),
    "kitchen": (120, 60, 200),
    "accessory": (255, 200, 0),
    "animal": (255, 120, 120),
    "outdoor": (250, 250, 60),
    "person": (220, 20, 60),
    "sports": (0, 255, 200),
    "vehicle": (20, 20, 170),
    "ceiling": (225, 225, 205),
    "floor": (150, 120, 90),
    "food-stuff": (230, 130, 30),
    "furniture-stuff": (130, 80, 45),
    "raw-material": (165, 165, 175),
    "textile": (200, 130, 170),
    "wall": (190, 180, 150),
    "window": (170, 215, 230),
    "building": (100, 100, 110),
    "ground": (180, 155, 100),
    "plant": (50, 140, 50),
    "sky": (110, 180, 245),
    "solid": (95, 75, 65),
    "structural": (140, 150, 190),
    "water": (30, 100, 200),
}

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

    def __init__(self, root: Path, split: str, variant: str) -> None:
        self._to_class = _id_table(variant)
        folder = f"{split}2017"
        ids = read_listing(root, root / "curated" / folder / VARIANTS[variant].lists[split])
        images = [root / "images" / folder / f"{image_id}.jpg" for image_id in ids]
        labels = [root / "annotations" / folder / f"{image_id}.png" for image_id in ids]
        require_files(root, [*images, *labels])
        super().__init__(cocostuff_classes(variant), images, labels)

    def class_ids(self, path: Path) -> np.ndarray:
        """Class ids; raises DataError for an unknown fine id."""
        return self._to_class(read_label(path), path)


def cocostuff_classes(variant: str) -> Classes:
    """Class names and palette of a variant."""
    names = VARIANTS[variant].supercategories
    return Classes(names, np.array([COLORS[name] for name in names], dtype=np.uint8))


def fine_labels() -> dict[int, tuple[str, str]]:
    """Name and supercategory of each label, by annotation value (0 to 181)."""
    labels = {}
    for supercategory, members in SUPERCATEGORIES.items():
        for member in members.split(", "):
            value, name = member.split(" ", 1)
            labels[int(value)] = (name, supercategory)
    return labels


def _id_table(variant: str) -> IdTable:
    class_of = {name: class_id for class_id, name in enumerate(VARIANTS[variant].supercategories)}
    fine = {value: class_of.get(supercategory, VOID) for value, (_, supercategory) in fine_labels().items()}
    return IdTable({**fine, 255: VOID})
