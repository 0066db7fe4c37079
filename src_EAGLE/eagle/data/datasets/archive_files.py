"""Look for a dataset's files where STEGO's archive puts them, or say how to fetch them; read lists of names."""

from collections.abc import Sequence
from pathlib import Path

from eagle.errors import DataError


def fetch_command(root: Path) -> str:
    """The command that fetches the dataset whose folder is ``root``; folders and archives have the same name."""
    return f"`python download_datasets.py datasets=[{root.name}] unzip=true pytorch_data_dir={root.parent}`"


def require_folder(root: Path, folder: Path) -> Path:
    """``folder``; raises DataError where it is not there."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; fetch it with {fetch_command(root)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {_refetch(root)}")
    return folder


def require_files(root: Path, files: Sequence[Path]) -> None:
    """Raise DataError, naming the first, where any of ``files`` is not there; lists folders, which is quick."""
    present = {folder: _names(folder) for folder in {file.parent for file in files}}
    missing = [file for file in files if file.name not in present[file.parent]]
    if missing:
        require_folder(root, missing[0].parent)
        raise DataError(f"{missing[0]}: no such file ({len(missing)} of {len(files)} are missing); {_refetch(root)}")


def read_listing(root: Path, listing: Path) -> list[str]:
    """The names in a text file, one a line; raises DataError where it is missing or empty."""
    require_folder(root, listing.parent)
    if not listing.is_file():
        raise DataError(f"{listing}: no such file; {_refetch(root)}")
    names = read_names(listing)
    if not names:
        raise DataError(f"{listing}: names no images; {_refetch(root)}")
    return names


def read_names(path: Path) -> list[str]:
    """The lines of a UTF-8 file without the empty ones; raises DataError where it is no such text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _refetch(root: Path) -> str:
    return f"move {root} away and fetch it anew with {fetch_command(root)}"
