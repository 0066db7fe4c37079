"""Fetch a dataset from STEGO's mirror, or build it from its publishers' archives."""

import logging
from dataclasses import dataclass
from pathlib import Path

from eagle.data.preparation.camvid import prepare_camvid
from eagle.data.preparation.cocostuff import prepare_cocostuff
from eagle.downloads.archives import extract_archive
from eagle.downloads.catalog import MIRRORED_DATASETS, ON_REQUEST, ORIGINALS, STEGO_DATA_URL
from eagle.downloads.http import download
from eagle.errors import DownloadError

_PREPARERS = {"cocostuff": prepare_cocostuff, "camvid": prepare_camvid}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetSource:
    """Where datasets come from.

    Attributes:
        source: "mirror" or "originals"; a dataset that is not on the mirror always comes from its publisher.
        base_url: URL of a folder that contains all archives; None for the source's own addresses.
    """

    source: str
    base_url: str | None = None

    def is_original(self, name: str) -> bool:
        """Whether the dataset comes from its publisher."""
        return self.source == "originals" or name not in MIRRORED_DATASETS

    def addresses(self, name: str) -> list[str]:
        """URLs of a dataset's archives; empty if its publisher has no open download."""
        if not self.is_original(name):
            return [f"{(self.base_url or STEGO_DATA_URL).rstrip('/')}/{name}.zip"]
        originals = ORIGINALS.get(name, ())
        return [f"{self.base_url.rstrip('/')}/{item.file}" if self.base_url else item.url for item in originals]


def fetch_dataset(name: str, data_dir: Path, source: DatasetSource, unzip: bool) -> Path:
    """Download a dataset if needed; return its folder if it exists or was built, else STEGO's archive.

    Args:
        name: a key of ``DATASETS``.
        data_dir: folder that holds all datasets; originals are kept in its sub-folder ``originals``.
        source: where the dataset comes from.
        unzip: whether to unpack STEGO's archive.

    Raises:
        DownloadError: the download fails, the publisher offers none, or an archive is damaged or unsafe.
        DataError: an archive does not contain what the dataset needs.
    """
    folder = data_dir / name
    if folder.is_dir():
        return folder
    if source.is_original(name):
        return _built_from_originals(name, folder, source)
    archive = download(source.addresses(name)[0], folder.with_name(f"{name}.zip"))
    if not unzip:
        return archive
    extract_archive(archive, data_dir)
    if not folder.is_dir():
        raise DownloadError(f"{archive}: contains no folder '{name}'; inspect what was unpacked to {data_dir}")
    return folder


def _built_from_originals(name: str, folder: Path, source: DatasetSource) -> Path:
    if name in ON_REQUEST:
        raise DownloadError(f"its publisher has no open download: {ON_REQUEST[name]}")
    files = [folder.parent / "originals" / original.file for original in ORIGINALS[name]]
    # Lazily, so that each archive is unpacked as soon as it is there.
    archives = (download(url, file) for url, file in zip(source.addresses(name), files, strict=True))
    logger.info("%s: %s", name, _PREPARERS[name](archives, folder))
    return folder
