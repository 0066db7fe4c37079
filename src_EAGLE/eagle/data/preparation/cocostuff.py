"""COCO-Stuff from its publishers' archives, laid out like STEGO's ``cocostuff.zip``.

``train2017.zip`` and ``val2017.zip`` (COCO) contain the images, ``stuffthingmaps_trainval2017.zip`` (COCO-Stuff) the
annotations with values 0 to 181 and 255, and PiCIE's repository the curated lists. Files are copied byte for byte.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from eagle.data.datasets.base import read_names
from eagle.data.datasets.cocostuff import VARIANTS
from eagle.data.preparation.staging import merge_archives, require_unpacked, staged

_IMAGE_OR_ANNOTATION = re.compile(r"(?:.*/)?((?:train|val)2017)/(\d{12}\.(jpg|png))")
_LIST = re.compile(r"(?:.*/)?(curated/(?:train|val)2017/\w+\.txt)")
_FOLDERS = {"jpg": "images", "png": "annotations"}
_EXPECTED = "train2017/ID.jpg or ID.png, val2017/ID.jpg or ID.png, curated/train2017/LIST.txt"


def prepare_cocostuff(archives: Iterable[Path], root: Path) -> str:
    """Build ``root`` from the four archives, which may be fetched one at a time while they are unpacked.

    Args:
        archives: paths; the archive of the curated lists comes first, so that a missing list shows before the rest is
            fetched.
        root: the folder to create.

    Returns:
        A summary of what was written.

    Raises:
        DownloadError: an archive is damaged, unsafe or too large for the disk.
        DataError: an archive has none of the expected files, or a curated list or a file that it names is missing.
    """
    with staged(root) as folder:
        remaining = iter(archives)
        merged = merge_archives(islice(remaining, 1), folder, _place, _EXPECTED)
        lists = sorted({(split, name) for variant in VARIANTS.values() for split, name in variant.lists.items()})
        listings = [folder / "curated" / f"{split}2017" / name for split, name in lists]
        require_unpacked(folder, listings, merged)
        merged += merge_archives(remaining, folder, _place, _EXPECTED)
        require_unpacked(folder, _listed_files(folder, listings), merged)
        counts = {split: sum(1 for _ in (folder / "images" / f"{split}2017").iterdir()) for split in ("train", "val")}
    return f"{counts['train']} training and {counts['val']} validation images"


def _place(name: str) -> str | None:
    if listing := _LIST.fullmatch(name):
        return listing[1]
    file = _IMAGE_OR_ANNOTATION.fullmatch(name)
    return f"{_FOLDERS[file[3]]}/{file[1]}/{file[2]}" if file else None


def _listed_files(folder: Path, listings: Iterable[Path]) -> Iterator[Path]:
    for split, image_id in sorted({(path.parent.name, name) for path in listings for name in read_names(path)}):
        yield folder / "images" / split / f"{image_id}.jpg"
        yield folder / "annotations" / split / f"{image_id}.png"
