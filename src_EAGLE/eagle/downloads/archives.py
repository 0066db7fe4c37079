"""Unpack chosen files of zip archives from untrusted sources: nothing is written outside the target folder."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from tqdm import tqdm

from eagle.errors import DataError, DownloadError
from eagle.files import locked

# Maps a member's name to a path relative to the target folder, or to None to leave the member out.
Place = Callable[[str], str | None]

_DISTRUST = "do not trust this archive"


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``root``; rename it to ``root`` on success, delete it on error.

    Raises:
        EagleError: another process prepares ``root``.
    """
    temporary = root.with_name(f".{root.name}.preparing")
    with locked(root.with_name(f".{root.name}.eagle-lock"), root):
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
        try:
            temporary.mkdir(parents=True)
            yield temporary
            temporary.rename(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def extract_members(path: Path, folder: Path, place: Place) -> int:
    """Unpack the files of a zip archive that ``place`` chooses, under the names that it gives; return their number.

    What a failed call leaves in ``folder``, which exists, is for the caller to delete.

    Raises:
        DownloadError: the archive is missing, damaged, encrypted or too large for the disk; a member has an absolute
            name or a name with ``..``; a chosen member is a link, or its target already exists.
    """
    with _errors_name(path, folder), zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for name in (member.filename for member in members):
            pure = PureWindowsPath(name)  # recognises drives and both separators
            if pure.anchor or ".." in pure.parts:
                raise DownloadError(f"{path}: member '{name}' would be written outside {folder}; {_DISTRUST}")
        chosen = [(member, target) for member in members if (target := place(member.filename)) is not None]
        total, free = sum(member.file_size for member, _ in chosen), shutil.disk_usage(folder).free
        if total > free:
            raise DownloadError(f"{folder}: {path.name} needs {total} bytes unpacked and {free} are free; make room")
        for member, target in tqdm(chosen, desc=path.name, unit="file", disable=len(chosen) == 1):
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DownloadError(f"{path}: member '{member.filename}' is a link; {_DISTRUST}")
            file = folder / target
            if not file.resolve().is_relative_to(folder.resolve()):
                raise DownloadError(f"{path}: member '{member.filename}' leads outside the archive; {_DISTRUST}")
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, file.open("xb") as output:
                shutil.copyfileobj(source, output)
    return len(chosen)


def merge_archives(archives: Iterable[Path], folder: Path, place: Place, expected: str) -> list[Path]:
    """Unpack what ``place`` chooses from each archive into one folder, as ``extract_members`` does; list the archives.

    Raises DataError, with what was ``expected``, if nothing is chosen from an archive.
    """
    merged = []
    for archive in archives:
        if not extract_members(archive, folder, place):
            raise DataError(f"{archive}: contains none of the expected files ({expected}); is it the right archive?")
        merged.append(archive)
    return merged


def require_unpacked(folder: Path, files: Iterable[Path], archives: Iterable[Path]) -> None:
    """Raise DataError if one of ``files`` does not exist in ``folder``; its message names the archives."""
    files = list(files)
    missing = [file for file in files if not file.exists()]
    if missing:
        names, first = ", ".join(str(archive) for archive in archives), missing[0].relative_to(folder).as_posix()
        raise DataError(f"{names}: no {first} ({len(missing)} of {len(files)} are missing); fetch the archives again")


def member_names(path: Path) -> list[str]:
    """Names of the files in a zip archive; raises DownloadError if it is missing or not a zip archive."""
    with _errors_name(path, path.parent), zipfile.ZipFile(path) as archive:
        return [member.filename for member in archive.infolist() if not member.is_dir()]


@contextmanager
def _errors_name(path: Path, folder: Path) -> Iterator[None]:
    """Turn what zipfile raises into a one-line DownloadError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"{path}: damaged archive ({error}); delete it and fetch it again") from error
    except (RuntimeError, ValueError) as error:
        raise DownloadError(f"{path}: {error}; unpack it by hand") from error
    except OSError as error:
        raise DownloadError(f"{path}: cannot be unpacked into {folder} ({error.strerror or error})") from error
