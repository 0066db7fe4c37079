"""Unpack chosen files of zip archives from untrusted sources: nothing is written outside the target folder."""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from tqdm import tqdm

from eagle.errors import DataError, DownloadError
from eagle.files import locked

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


def unpack(path: Path, folder: Path, places: Mapping[str, str]) -> None:
    r"""Unpack the files of a zip archive whose whole names match a pattern of ``places``, under the name that it gives.

    Args:
        path: the archive.
        folder: existing folder to write to; what a failed call leaves there is for the caller to delete.
        places: by pattern, the path below ``folder``, with groups as ``\1``.

    Raises:
        DownloadError: the archive is missing, damaged, encrypted or too large for the disk; a member has an absolute
            name or a name with ``..``; a chosen member is a link, or its target already exists.
        DataError: no name matches.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = _chosen(archive, folder, places)
            total, free = sum(member.file_size for member, _ in chosen), shutil.disk_usage(folder).free
            if total > free:
                raise DownloadError(f"{folder}: {path.name} needs {total} bytes unpacked and {free} are free")
            for member, file in tqdm(chosen, desc=path.name, unit="file"):
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, file.open("xb") as output:
                    shutil.copyfileobj(source, output)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"{path}: damaged archive ({error}); delete it and fetch it again") from error
    except (RuntimeError, ValueError) as error:
        raise DownloadError(f"{path}: {error}; unpack it by hand") from error
    except OSError as error:
        raise DownloadError(f"{path}: cannot be unpacked into {folder} ({error.strerror or error})") from error


def _chosen(archive: zipfile.ZipFile, folder: Path, places: Mapping[str, str]) -> list[tuple[zipfile.ZipInfo, Path]]:
    """The wanted members and the files to write."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    for name in (member.filename for member in members):
        pure = PureWindowsPath(name)  # recognises drives and both separators
        if pure.anchor or ".." in pure.parts:
            raise DownloadError(f"{archive.filename}: member '{name}' would be written outside {folder}; {_DISTRUST}")
    chosen = [
        (member, folder / found.expand(place))
        for member in members
        for pattern, place in places.items()
        if (found := re.fullmatch(pattern, member.filename))
    ]
    if not chosen:
        raise DataError(f"{archive.filename}: contains none of the expected files ({', '.join(places)})")
    for member, _ in chosen:
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DownloadError(f"{archive.filename}: member '{member.filename}' is a link; {_DISTRUST}")
    return chosen
