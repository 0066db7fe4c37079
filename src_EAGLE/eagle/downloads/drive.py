"""Fetch a public Google Drive file with gdown, which handles Drive's confirmation pages."""

import shutil
from pathlib import Path

import gdown

from eagle.downloads.file_checks import rename_verified
from eagle.errors import DownloadError


def download_from_drive(
    file_id: str, destination: str | Path, *, size: int | None = None, sha256: str | None = None
) -> Path:
    """Fetch a Google Drive file, unless ``destination`` already exists.

    Bytes are written to the folder ``destination + ".drive"``, from which a later process resumes.

    Args:
        file_id: the id in the file's share link.
        destination: the file to write; its folder is created.
        size: expected size in bytes, if known.
        sha256: expected hexadecimal digest, if known.

    Returns:
        ``destination``.

    Raises:
        DownloadError: Drive refuses (too many recent downloads of this file, no permission), the connection fails,
            or the result is not the expected file.
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
    except Exception as error:  # gdown's errors, requests' errors and, before gdown 6, bare assertions
        _remove_if_empty(folder)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"{address}: {reason}; run the command again, or {by_hand}") from error
    if not part.is_file():
        _remove_if_empty(folder)
        raise DownloadError(f"{address}: Google Drive sent no file; {by_hand}")
    rename_verified(part, destination, address, size=size, sha256=sha256)
    shutil.rmtree(folder)
    return destination


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
