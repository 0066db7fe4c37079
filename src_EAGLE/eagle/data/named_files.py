"""Photographs that a command names: files, folders, output names, and those bundled with installed packages."""

import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from itertools import chain, count
from pathlib import Path

from eagle.data.images import IMAGE_SUFFIXES, image_files
from eagle.errors import DataError

# Of a name to which endings are added; file systems take 255.
MOST_BYTES = 220


def named_files(paths: Sequence[str], extra_suffixes: tuple[str, ...] = ()) -> list[Path]:
    """List the given files once each and in order; a folder is replaced by its image files, sorted by name.

    ``extra_suffixes`` are further lower-case suffixes to accept in folders.

    Raises:
        DataError: a path does not exist, or a folder contains no such files.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = image_files(path, extra_suffixes)
            if not found:
                suffixes = ", ".join((*IMAGE_SUFFIXES, *extra_suffixes))
                raise DataError(f"{path}: contains none of {suffixes} itself; subfolders are not searched")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    return list(dict.fromkeys(files))


def short_stem(path: Path) -> str:
    """A file's stem; if file systems would refuse it with an ending such as ``_overlay.png``, its start and a hash."""
    stem = os.fsencode(path.stem)
    if len(stem) <= MOST_BYTES:
        return path.stem
    return f"{stem[: MOST_BYTES - 7].decode(errors='ignore')}_{hashlib.sha256(stem).hexdigest()[:6]}"


def output_names(files: Sequence[Path]) -> list[str]:
    """A unique name for each file: its stem, with a number from 2 where others have it already."""
    names: dict[str, None] = {}
    for stem in map(short_stem, files):
        numbered = chain([stem], (f"{stem}_{number}" for number in count(2)))
        names[next(name for name in numbered if name not in names)] = None
    return list(names)


SKIMAGE = "skimage.data"
SKLEARN = "sklearn.datasets.images"

# Colour photographs of everyday scenes; the packages' test patterns, textures and micrographs are omitted.
PHOTOGRAPHS = (
    (SKIMAGE, "astronaut.png"),
    (SKIMAGE, "chelsea.png"),
    (SKLEARN, "china.jpg"),
    (SKIMAGE, "coffee.png"),
    (SKLEARN, "flower.jpg"),
    (SKIMAGE, "hubble_deep_field.jpg"),
    (SKIMAGE, "motorcycle_left.png"),
    (SKIMAGE, "rocket.jpg"),
)


def bundled_photographs() -> list[Path]:
    """Paths of all bundled photographs, sorted by name; raises DataError if one is missing."""
    return [bundled_file(package, name) for package, name in PHOTOGRAPHS]


def bundled_file(package: str, name: str) -> Path:
    """Path of a file in an installed package; raises DataError if it is missing."""
    path = Path(str(files(package) / name))
    if not path.is_file():
        raise DataError(f"{name}: missing from the installed {package}; reinstall scikit-image and scikit-learn")
    return path
