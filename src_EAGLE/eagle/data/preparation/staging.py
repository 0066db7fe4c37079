"""Build a dataset's folder under a temporary name, and rename it once it is complete."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eagle.downloads.archives import extract_members
from eagle.errors import DataError


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``root``; rename it to ``root`` on success, delete it on error."""
    temporary = root.with_name(f".{root.name}.preparing")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def merge_archives(
    archives: Iterable[Path], folder: Path, place: Callable[[str], str | None], expected: str
) -> list[Path]:
    """Unpack what ``place`` chooses from each archive into one folder.

    Args:
        archives: zip archives, in any order.
        folder: existing target folder.
        place: as ``extract_members`` takes it.
        expected: what an archive contains, for the error.

    Returns:
        The archives.

    Raises:
        DownloadError: as ``extract_members`` raises it.
        DataError: nothing is chosen from an archive.
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
