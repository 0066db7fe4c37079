"""Unpack zip and tar archives from untrusted sources: nothing is written outside the target folder."""

import platform
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

from tqdm import tqdm

from eagle.errors import DownloadError

# Python 3.11.0 to 3.11.3 have neither this error nor the filters that raise it.
_FILTER_ERROR: Any = getattr(tarfile, "FilterError", ())


def extract_archive(path: str | Path, folder: str | Path) -> list[Path]:
    """Unpack an archive into ``folder`` without overwriting anything.

    The archive is unpacked into a temporary folder, whose entries are moved once it is complete.

    Args:
        path: a .zip or .tar file; a .tar may be compressed.
        folder: target of the archive's top-level entries; created if missing.

    Returns:
        The unpacked top-level files and folders, sorted.

    Raises:
        DownloadError: the archive is missing, damaged, encrypted or too large for the disk; a member has an absolute
            name, a name with ``..`` or is a link to outside; or a top-level entry already exists in ``folder``.
    """
    path, folder = Path(path), Path(folder)
    temporary = folder / f".{path.name}.extracting"
    with _errors_name(path, folder):
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
            temporary.mkdir(parents=True)
            if zipfile.is_zipfile(path):
                _extract_zip(path, folder, temporary)
            elif tarfile.is_tarfile(path):
                _extract_tar(path, folder, temporary)
            else:
                raise DownloadError(f"{path}: not a zip or tar archive; delete it and fetch it again")
            entries = sorted(temporary.iterdir())
            return [entry.rename(folder / entry.name) for entry in entries]
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def extract_members(path: Path, folder: Path, place: Callable[[str], str | None]) -> int:
    """Unpack chosen files of a zip archive under names of the caller's choice.

    Args:
        path: a .zip file.
        folder: existing target folder; what a failed call leaves in it is for the caller to delete.
        place: maps a member's name to a path relative to ``folder``, or to None to leave the member out.

    Returns:
        Number of unpacked files.

    Raises:
        DownloadError: the archive is missing, damaged, encrypted or too large for the disk; a member has an absolute
            name or a name with ``..``; a chosen member is a link, or its target already exists.
    """
    with _errors_name(path, folder), zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        _check_names(path, folder, [member.filename for member in members])
        chosen = [(member, target) for member in members if (target := place(member.filename)) is not None]
        _check_space(path, folder, sum(member.file_size for member, _ in chosen))
        for member, target in tqdm(chosen, desc=path.name, unit="file", disable=len(chosen) == 1):
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DownloadError(f"{path}: member '{member.filename}' is a link; do not trust this archive")
            file = folder / target
            _check_place(path, folder, member.filename, file)
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, file.open("xb") as output:
                shutil.copyfileobj(source, output)
    return len(chosen)


def member_names(path: Path) -> list[str]:
    """Names of the files in a zip archive; raises DownloadError if it is missing or not a zip archive."""
    with _errors_name(path, path.parent), zipfile.ZipFile(path) as archive:
        return [member.filename for member in archive.infolist() if not member.is_dir()]


@contextmanager
def _errors_name(path: Path, folder: Path) -> Iterator[None]:
    """Turn what the archive modules raise into a one-line DownloadError."""
    try:
        yield
    except _FILTER_ERROR as error:
        raise DownloadError(f"{path}: {error}; do not trust this archive") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise DownloadError(f"{path}: damaged archive ({error}); delete it and fetch it again") from error
    except (RuntimeError, ValueError) as error:
        raise DownloadError(f"{path}: {error}; unpack it by hand") from error
    except OSError as error:
        raise DownloadError(f"{path}: cannot be unpacked into {folder} ({error.strerror or error})") from error


def _extract_zip(path: Path, folder: Path, temporary: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_members(path, folder, [member.filename for member in members], sum(m.file_size for m in members))
        for member in tqdm(members, desc=path.name, unit="file"):
            if not stat.S_ISLNK(member.external_attr >> 16):
                _check_place(path, temporary, member.filename, temporary / member.filename)
                archive.extract(member, temporary)
                continue
            link = temporary / member.filename
            target = archive.read(member).decode()
            _check_place(path, temporary, member.filename, link.parent / target)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


def _extract_tar(path: Path, folder: Path, temporary: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError(f"{path}: Python {platform.python_version()} cannot unpack tar safely; use 3.11.4 or later")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        _check_members(path, folder, [member.name for member in members], sum(member.size for member in members))
        for member in tqdm(members, desc=path.name, unit="file"):
            # The standard library's "data" filter refuses devices and links to outside.
            archive.extract(member, temporary, filter="data")


def _check_members(path: Path, folder: Path, names: list[str], total: int) -> None:
    """Refuse names outside the folder, existing entries and too little disk space, before anything is written."""
    _check_names(path, folder, names)
    for entry in {PureWindowsPath(name).parts[0] for name in names if PureWindowsPath(name).parts}:
        if (folder / entry).exists():
            raise DownloadError(f"{folder / entry}: already exists; move it away to unpack {path.name} again")
    _check_space(path, folder, total)


def _check_names(path: Path, folder: Path, names: list[str]) -> None:
    """Refuse names outside the folder, parsed as Windows paths: drives and both separators are recognised."""
    for name in names:
        pure = PureWindowsPath(name)
        if pure.anchor or ".." in pure.parts:
            raise DownloadError(f"{path}: member '{name}' would be written outside {folder}; do not trust this archive")


def _check_space(path: Path, folder: Path, total: int) -> None:
    free = shutil.disk_usage(folder).free
    if total > free:
        raise DownloadError(f"{folder}: {path.name} needs {total} bytes unpacked and {free} are free; make room")


def _check_place(path: Path, root: Path, name: str, place: Path) -> None:
    """Refuse a place that resolves to outside ``root`` through links unpacked earlier."""
    if not place.resolve().is_relative_to(root.resolve()):
        raise DownloadError(f"{path}: member '{name}' leads outside the archive; do not trust this archive")
