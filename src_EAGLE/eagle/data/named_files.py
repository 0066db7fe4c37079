"""The files that a command's words name, and a name for what is made of each."""

from collections.abc import Sequence
from pathlib import Path

from eagle.data.images import IMAGE_SUFFIXES, image_files
from eagle.errors import DataError


def named_files(paths: Sequence[str], further_suffixes: tuple[str, ...] = ()) -> list[Path]:
    """Files as they are named, and in place of a folder its images, sorted by name.

    Args:
        paths: files and folders.
        further_suffixes: of other files that folders are searched for, lower case.

    Raises:
        DataError: there is no such file or folder, or a folder holds no such files.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = image_files(path, further_suffixes)
            if not found:
                raise DataError(f"{path}: holds no files to read ({', '.join((*IMAGE_SUFFIXES, *further_suffixes))})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    return files


def output_names(files: Sequence[Path]) -> list[str]:
    """A name for each file: its stem, with the suffix where two share a stem, with a number where they share both."""
    names: list[str] = []
    stems = [file.stem for file in files]
    for file in files:
        name = file.stem if stems.count(file.stem) == 1 else f"{file.stem}_{file.suffix[1:].lower()}"
        taken = names.count(name)
        names.append(name)
        if taken:
            names[-1] = f"{name}_{taken + 1}"
    return names
