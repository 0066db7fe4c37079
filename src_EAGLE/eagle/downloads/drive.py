"""Fetch a public Google Drive file through gdown, which knows Drive's confirmation pages."""

import shutil
from pathlib import Path

import gdown

from eagle.downloads.file_checks import publish
from eagle.errors import DownloadError


def download_from_drive(
    file_id: str, destination: str | Path, *, size: int | None = None, sha256: str | None = None
) -> Path:
    """Fetch a Google Drive file; one already there is left alone.

    The bytes go to the folder ``destination + ".drive"``, where a later process continues them.

    Args:
        file_id: the id in the file's share link.
        destination: the file to write; its folder is made.
        size: bytes that the file must have, where known.
        sha256: hexadecimal digest that the file must have, where known.

    Returns:
        ``destination``.

    Raises:
        DownloadError: Drive refuses (too many recent downloads of this file, no permission), the connection fails,
            or what arrived is not the file.
    """
    destination = Path(destination)
    if destination.is_file():
        return destination
    address = f"https://drive.google.com/uc?id={file_id}"
    by_hand = f"open {address} in a browser and save the file as {destination}"
    folder = destination.with_name(destination.name + ".drive")
    part = folder / destination.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        gdown.download(id=file_id, output=str(part), resume=True)
    except Exception as error:  # gdown's own errors, requests' and, before gdown 6, bare assertions
        _remove_if_empty(folder)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"{address}: {reason}; run the command again, or {by_hand}") from error
    if not part.is_file():
        _remove_if_empty(folder)
        raise DownloadError(f"{address}: Google Drive sent no file; {by_hand}")
    publish(part, destination, address, size=size, sha256=sha256)
    shutil.rmtree(folder)
    return destination


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
