"""Cityscapes with 27 classes, in torchvision's folder layout.

``cityscapes/leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png`` and, for each image,
``cityscapes/gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png``. Cordts et al., "The Cityscapes Dataset for Semantic
Urban Scene Understanding", CVPR 2016; the 27 classes are its raw ids 7 to 33, as IIC, PiCIE and STEGO use them.
"""

from pathlib import Path

import numpy as np

from eagle.data.datasets.base import VOID, Classes, SegmentationDataset, incomplete, require_files

_FIRST_ID, _LAST_ID = 7, 33
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
        classes = {i: i - _FIRST_ID if _FIRST_ID <= i <= _LAST_ID else VOID for i in range(256)}
        super().__init__(cityscapes_classes(), images, labels, classes)

    def name(self, index: int) -> str:
        """City, sequence and frame."""
        return self.image_path(index).name.removesuffix(_IMAGE_SUFFIX)


def cityscapes_classes() -> Classes:
    """Official names and colours, by raw id."""
    from torchvision.datasets import Cityscapes as Official  # imports torch, which help and mistakes do not need

    classes = sorted((c for c in Official.classes if _FIRST_ID <= c.id <= _LAST_ID), key=lambda c: c.id)
    return Classes(tuple(c.name for c in classes), np.array([c.color for c in classes], dtype=np.uint8))
