"""Fetch a dataset from STEGO's mirror, or build it from its publishers' archives."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from eagle.data.preparation.potsdam_crops import prepare_potsdam
from eagle.data.preparation.publishers import prepare_camvid, prepare_cityscapes, prepare_cocostuff
from eagle.downloads.archives import merge_archives, staged
from eagle.downloads.catalog import MIRRORED_DATASETS, ON_REQUEST, ORIGINALS, STEGO_DATA_URL
from eagle.downloads.fetching import fetch_file
from eagle.errors import DataError, DownloadError

_PREPARERS: dict[str, Callable[[Any, Path], str]] = {
    "cocostuff": prepare_cocostuff,
    "camvid": prepare_camvid,
    "cityscapes": prepare_cityscapes,
    "potsdam": prepare_potsdam,
}

logger = logging.getLogger(__name__)


def archive_addresses(name: str, source: str, base_url: str | None = None) -> dict[str, str]:
    """URLs of a dataset's archives by file, relative to the folder of all datasets; empty without an open download.

    Args:
        name: a key of ``DATASETS``.
        source: "mirror" or "originals"; a dataset that is not on the mirror always comes from its publisher.
        base_url: URL of a folder that contains all archives; None for the source's own addresses.
    """
    if source == "mirror" and name in MIRRORED_DATASETS:
        return {f"{name}.zip": f"{(base_url or STEGO_DATA_URL).rstrip('/')}/{name}.zip"}
    originals = ORIGINALS.get(name, {})
    return {
        f"originals/{file}": f"{base_url.rstrip('/')}/{file}" if base_url else url for file, url in originals.items()
    }


def fetch_dataset(name: str, data_dir: Path, addresses: dict[str, str], unzip: bool) -> Path:
    """Download a dataset if needed; return its folder if it exists or was built, else STEGO's archive.

    Args:
        name: a key of ``DATASETS``.
        data_dir: folder that holds all datasets; originals are kept in its sub-folder ``originals``.
        addresses: what ``archive_addresses`` returns.
        unzip: whether to unpack STEGO's archive.

    Raises:
        DownloadError: the download fails, the publisher offers none, or an archive is damaged or unsafe.
        DataError: an archive does not contain what the dataset needs.
    """
    folder = data_dir / name
    if folder.is_dir():
        return folder
    if not addresses:
        raise DownloadError(f"its publisher has no open download: {ON_REQUEST[name]}")
    # Lazily, so that each archive is unpacked as soon as it is there.
    archives = (fetch_file(url, data_dir / file) for file, url in addresses.items())
    if f"{name}.zip" not in addresses:
        return _built(name, archives, folder)
    archive = next(archives)
    return _unpacked(archive, folder) if unzip else archive


def prepare_dataset(name: str, data_dir: Path, archives: Sequence[Path]) -> Path:
    """Build a dataset from archives that its publisher hands out on request, unless its folder exists; return it.

    Raises:
        DownloadError: an archive is damaged, unsafe or too large for the disk.
        DataError: an archive is missing or does not contain what the dataset needs.
    """
    folder = data_dir / name
    missing = [archive for archive in archives if not archive.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: no such file")
    return folder if folder.is_dir() else _built(name, archives, folder)


def _built(name: str, archives: Iterable[Path], folder: Path) -> Path:
    logger.info("%s: %s", name, _PREPARERS[name](archives, folder))
    return folder


def _unpacked(archive: Path, folder: Path) -> Path:
    """Unpack the folder of STEGO's archive."""
    prefix = f"{folder.name}/"

    def place(name: str) -> str | None:
        return name.removeprefix(prefix) if name.startswith(prefix) else None

    with staged(folder) as unfinished:
        merge_archives([archive], unfinished, place, f"{prefix}…")
    return folder
