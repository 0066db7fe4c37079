"""Cityscapes from the publisher's ``leftImg8bit_trainvaltest.zip`` and ``gtFine_trainvaltest.zip``.

Only what the dataset reads is unpacked: images and ``labelIds`` of train and val.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from eagle.data.preparation.staging import merge_archives, require_unpacked, staged

_SPLITS = ("train", "val")
_WANTED = re.compile(
    r"(?:leftImg8bit/(?:train|val)/[\w-]+/[\w-]+_leftImg8bit|gtFine/(?:train|val)/[\w-]+/[\w-]+_gtFine_labelIds)\.png"
)
_EXPECTED = "leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png, gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png"


def prepare_cityscapes(archives: Sequence[Path], root: Path) -> str:
    """Build ``root`` from the archives of images and of fine labels, in any order.

    Returns:
        A summary of what was written.

    Raises:
        DownloadError: an archive is damaged, unsafe or too large for the disk.
        DataError: an archive has none of the expected files, or an image lacks its label map.
    """
    with staged(root) as folder:
        merge_archives(archives, folder, lambda name: name if _WANTED.fullmatch(name) else None, _EXPECTED)
        require_unpacked(folder, [folder / "leftImg8bit" / split for split in _SPLITS], archives)
        images = {split: sorted((folder / "leftImg8bit" / split).glob("*/*.png")) for split in _SPLITS}
        require_unpacked(folder, [_label(folder, path) for split in _SPLITS for path in images[split]], archives)
    return f"{len(images['train'])} training and {len(images['val'])} validation images"


def _label(folder: Path, image: Path) -> Path:
    split_and_city = image.parent.relative_to(folder / "leftImg8bit")
    return folder / "gtFine" / split_and_city / image.name.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
