"""Find a dataset's files in the layout of STEGO's archives; errors name the commands that fetch them."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from eagle.errors import DataError

# The ways round STEGO's mirror, by dataset.
_PUBLISHERS_WAYS = {
    "cocostuff": "download_datasets.py datasets=[cocostuff] source=originals",
    "cityscapes": "download_datasets.py cityscapes=leftImg8bit_trainvaltest.zip,gtFine_trainvaltest.zip",
    "potsdam": "download_datasets.py potsdam=2_Ortho_RGB.zip,5_Labels_all.zip",
}


def fetch_commands(root: Path) -> str:
    """Commands that fetch the dataset in ``root`` from STEGO's mirror, or from its publisher where that is possible.

    Args:
        root: the dataset's folder, which has the archive's name.
    """
    place = f"pytorch_data_dir={root.parent}"
    mirror = f"`python download_datasets.py datasets=[{root.name}] unzip=true {place}`"
    way = _PUBLISHERS_WAYS.get(root.name)
    return f"{mirror}, or from its publisher with `python {way} {place}`" if way else mirror


def refetch(root: Path) -> str:
    """What to do about an incomplete folder, as the end of an error message."""
    return f"move {root} away and fetch it again with {fetch_commands(root)}"


def require_folder(root: Path, folder: Path) -> Path:
    """Return ``folder``; raises DataError if it or ``root`` does not exist."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; fetch it with {fetch_commands(root)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {refetch(root)}")
    return folder


def require_files(root: Path, files: Sequence[Path]) -> None:
    """Raise DataError that names the first missing file, if any of ``files`` is missing."""
    names: dict[Path, list[str]] = {}
    for file in files:
        names.setdefault(file.parent, []).append(file.name)
    if missing := [file for folder, wanted in names.items() for file in missing_files(folder, wanted)]:
        require_folder(root, missing[0].parent)
        raise DataError(f"{missing[0]}: no such file ({len(missing)} of {len(files)} are missing); {refetch(root)}")


def missing_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files that a folder lacks; one listing of names, since a Path per file takes ten times as long."""
    present = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
    return [folder / name for name in names if name not in present]


def read_listing(root: Path, listing: Path) -> list[str]:
    """Read names from a text file, one per line; raises DataError if it is missing or empty."""
    require_folder(root, listing.parent)
    if not listing.is_file():
        raise DataError(f"{listing}: no such file; {refetch(root)}")
    names = read_names(listing)
    if not names:
        raise DataError(f"{listing}: contains no image names; {refetch(root)}")
    return names


def read_names(path: Path) -> list[str]:
    """Read the non-empty lines of a UTF-8 file, stripped; raises DataError if it is not UTF-8."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    return [line.strip() for line in lines if line.strip()]
