"""Fetch a dataset from STEGO's mirror, or build it from its publishers' archives."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from eagle.data.datasets.base import SPLITS, VOID, SegmentationDataset
from eagle.data.datasets.cityscapes import Cityscapes
from eagle.data.datasets.cocostuff import VARIANTS, CocoStuff
from eagle.data.datasets.directory import DirectoryDataset
from eagle.data.datasets.potsdam import open_potsdam
from eagle.data.images import read_label
from eagle.data.labels import write_ids
from eagle.data.potsdam_crops import PHOTOGRAPHS_AND_LABELS, cut_photographs
from eagle.downloads.archives import staged, unpack
from eagle.downloads.catalog import MIRRORED_DATASETS, ON_REQUEST, ORIGINALS, STEGO_DATA_URL
from eagle.downloads.fetching import fetch_file
from eagle.errors import DataError, DownloadError
from eagle.files import write_text_atomically

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip

logger = logging.getLogger(__name__)


class Publisher(NamedTuple):
    """How a publisher's archives become a dataset."""

    places: dict[str, str]  # of the files, as ``unpack`` takes them
    open: Callable[[Path, str], SegmentationDataset]  # a split, which checks that no file is missing
    finish: Callable[[Path], None] = lambda _: None  # what is left to do with the unpacked files


def build(name: str, archives: Iterable[Path], root: Path) -> str:
    """Build the folder ``root`` of a dataset of ``PUBLISHERS`` from its archives, in any order; return a summary.

    Raises:
        DownloadError: an archive is damaged, unsafe or too large for the disk.
        DataError: an archive does not contain what the dataset needs.
    """
    publisher, unpacked = PUBLISHERS[name], []
    with staged(root) as folder:
        for archive in archives:  # lazily, so that each is unpacked as soon as it is there
            unpack(archive, folder, publisher.places)
            unpacked.append(str(archive))
        try:
            publisher.finish(folder)
            train, val = (len(publisher.open(folder, split)) for split in SPLITS)
        except DataError as error:
            problem = str(error).partition(";")[0].replace(f"{folder}/", "")
            raise DataError(f"{', '.join(unpacked)}: {problem}; fetch the archives again") from error
    return f"{train} training and {val} validation images"


def _open_cocostuff(root: Path, split: str) -> SegmentationDataset:
    """The images of all classes; every variant is opened, which checks its lists and their files."""
    variants = {name: CocoStuff(root, split, name) for name in VARIANTS}
    return variants["cocostuff27"]


def _finish_camvid(folder: Path) -> None:
    """Name the classes, and store the void label as 255."""
    void = len(CAMVID_CLASSES)
    for label in tqdm(sorted(folder.glob("labels/*/*.png")), desc="labels", unit="file"):
        ids = read_label(label)
        if ids.max() > void or ids.min() < 0:
            raise DataError(f"{label.name}: label id {ids.max()} is out of range 0 to {void}")
        write_ids(label, np.where(ids == void, VOID, ids), void)
    write_text_atomically(folder / "classes.txt", "".join(f"{name}\n" for name in CAMVID_CLASSES))


PUBLISHERS = {
    # Laid out like STEGO's archive. PiCIE's repository has the curated lists; train2017.zip and val2017.zip the images,
    # stuffthingmaps_trainval2017.zip the annotations.
    "cocostuff": Publisher(
        {
            r"(?:.*/)?(curated/(?:train|val)2017/\w+\.txt)": r"\1",
            r"(?:.*/)?((?:train|val)2017/\d{12}\.jpg)": r"images/\1",
            r"(?:.*/)?((?:train|val)2017/\d{12}\.png)": r"annotations/\1",
        },
        _open_cocostuff,
    ),
    "cityscapes": Publisher(
        {
            r"leftImg8bit/(?:train|val)/[\w-]+/[\w-]+_leftImg8bit\.png": r"\g<0>",
            r"gtFine/(?:train|val)/[\w-]+/[\w-]+_gtFine_labelIds\.png": r"\g<0>",
        },
        Cityscapes,
    ),
    # A directory dataset. Label ids are 0 to 10, and 11 = void; official validation and test images are for validation.
    "camvid": Publisher(
        {
            r"(?:.*/)?CamVid/train/([\w-]+\.png)": r"imgs/train/\1",
            r"(?:.*/)?CamVid/trainannot/([\w-]+\.png)": r"labels/train/\1",
            r"(?:.*/)?CamVid/(?:val|test)/([\w-]+\.png)": r"imgs/val/\1",
            r"(?:.*/)?CamVid/(?:val|test)annot/([\w-]+\.png)": r"labels/val/\1",
        },
        DirectoryDataset,
        _finish_camvid,
    ),
    "potsdam": Publisher(PHOTOGRAPHS_AND_LABELS, open_potsdam, cut_photographs),
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
    archives = given or (fetch_file(url, data_dir / file) for file, url in addresses.items())
    if given or f"{name}.zip" not in addresses:
        logger.info("%s: %s", name, build(name, archives, folder))
        return folder
    (archive,) = archives
    if not unzip:
        return archive
    with staged(folder) as unfinished:
        unpack(archive, unfinished, {f"{name}/(.+)": r"\1"})
    return folder
