"""Find a dataset's files in the layout of STEGO's archives; errors name the command that fetches them."""

from collections.abc import Sequence
from pathlib import Path

from eagle.errors import DataError


def fetch_command(root: Path) -> str:
    """Command that fetches the dataset stored in ``root``; the folder has the archive's name."""
    return f"`python download_datasets.py datasets=[{root.name}] unzip=true pytorch_data_dir={root.parent}`"


def require_folder(root: Path, folder: Path) -> Path:
    """Return ``folder``; raises DataError if it or ``root`` does not exist."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; fetch it with {fetch_command(root)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {_refetch(root)}")
    return folder


def require_files(root: Path, files: Sequence[Path]) -> None:
    """Raise DataError that names the first missing file, if any of ``files`` is missing."""
    if missing := missing_files(files):
        require_folder(root, missing[0].parent)
        raise DataError(f"{missing[0]}: no such file ({len(missing)} of {len(files)} are missing); {_refetch(root)}")


def missing_files(files: Sequence[Path]) -> list[Path]:
    """The files that do not exist; lists each folder once, which is faster than checking each file."""
    folders = {file.parent for file in files}
    present = {folder: {path.name for path in folder.iterdir()} if folder.is_dir() else set() for folder in folders}
    return [file for file in files if file.name not in present[file.parent]]


def read_listing(root: Path, listing: Path) -> list[str]:
    """Read names from a text file, one per line; raises DataError if it is missing or empty."""
    require_folder(root, listing.parent)
    if not listing.is_file():
        raise DataError(f"{listing}: no such file; {_refetch(root)}")
    names = read_names(listing)
    if not names:
        raise DataError(f"{listing}: contains no image names; {_refetch(root)}")
    return names


def read_names(path: Path) -> list[str]:
    """Read the non-empty lines of a UTF-8 file, stripped; raises DataError if it is not UTF-8."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def _refetch(root: Path) -> str:
    return f"move {root} away and fetch it again with {fetch_command(root)}"
