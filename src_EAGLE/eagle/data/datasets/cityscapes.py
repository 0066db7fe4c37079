"""Cityscapes with 27 classes, in torchvision's folder layout.

``cityscapes/leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png`` and, for each image,
``cityscapes/gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png``. Cordts et al., "The Cityscapes Dataset for Semantic
Urban Scene Understanding", CVPR 2016; the 27 classes are its raw ids 7 to 33, as IIC, PiCIE and STEGO use them.
"""

from pathlib import Path

import numpy as np

from eagle.data.datasets.base import VOID, Classes, IdTable, SegmentationDataset, incomplete, require_files
from eagle.data.images import read_label

# Ordered by raw id; official colours.
CLASS_COLORS = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "parking": (250, 170, 160),
    "rail track": (230, 150, 140),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (180, 165, 180),
    "bridge": (150, 100, 100),
    "tunnel": (150, 120, 90),
    "pole": (153, 153, 153),
    "polegroup": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "caravan": (0, 0, 90),
    "trailer": (0, 0, 110),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
CITYSCAPES_CLASSES = Classes(tuple(CLASS_COLORS), np.array(list(CLASS_COLORS.values()), dtype=np.uint8))

_FIRST_ID = 7
_TO_CLASS = IdTable({_FIRST_ID + i: i for i in range(len(CLASS_COLORS))}, otherwise=VOID)
_IMAGE_SUFFIX, _LABEL_SUFFIX = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(SegmentationDataset):
    """One split, sorted by city and name; raises DataError if there are no images, or a fine label map is missing."""

    def __init__(self, root: Path, split: str) -> None:
        folder = root / "leftImg8bit" / split
        images = sorted(folder.glob(f"*/*{_IMAGE_SUFFIX}"))
        if not images:
            raise incomplete(root, f"{folder}: contains no CITY/*{_IMAGE_SUFFIX}")
        labels = [
            root / "gtFine" / split / path.parent.name / path.name.replace(_IMAGE_SUFFIX, _LABEL_SUFFIX)
            for path in images
        ]
        require_files(root, labels)
        super().__init__(CITYSCAPES_CLASSES, images, labels)

    def name(self, index: int) -> str:
        """City, sequence and frame."""
        return self.image_path(index).name.removesuffix(_IMAGE_SUFFIX)

    def class_ids(self, path: Path) -> np.ndarray:
        """Class ids."""
        return _TO_CLASS(read_label(path), path)
