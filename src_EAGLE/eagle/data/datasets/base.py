"""What all datasets share: their images and labels, the ids of their label files, and how their files are found."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from eagle.data.images import read_image, read_label
from eagle.errors import DataError

VOID = -1
VOID_ID = 255  # in files
SPLITS = ("train", "val")

_UNKNOWN = -2


@dataclass(frozen=True)
class Classes:
    """Names of a dataset's classes by class id, and their RGB colours, n×3 uint8."""

    names: tuple[str, ...]
    palette: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


class SegmentationDataset:
    """Images of one split in a fixed order, one a file, with optional label maps.

    Args:
        classes: class names and palette.
        images: the images' files.
        labels: their label maps' files, None for an image without one; None for a dataset without labels.
        class_of_id: class id, or VOID, by the id in the label maps, at most 255; None for class ids as they are, and
            255 for void.

    Attributes:
        classes: class names and palette.
        has_labels: whether there are label maps.
        skipped: one error message for each image left out because it cannot be read.
    """

    def __init__(
        self,
        classes: Classes,
        images: Sequence[Path],
        labels: Sequence[Path | None] | None,
        class_of_id: Mapping[int, int] | None = None,
    ) -> None:
        self.classes = classes
        self.has_labels = labels is not None
        self.skipped: tuple[str, ...] = ()
        class_of_id = class_of_id or {**{i: i for i in range(len(classes))}, VOID_ID: VOID}
        # The class by id; the last entry for ids that are no byte.
        self._class_of_id = np.full(VOID_ID + 2, _UNKNOWN, dtype=np.int32)
        self._class_of_id[list(class_of_id)] = list(class_of_id.values())
        self._images, self._labels = images, labels or []
        self._places: Sequence[int] = range(len(images))

    def __len__(self) -> int:
        return len(self._places)

    def part(self, indices: Iterable[int], skipped: Iterable[str] = ()) -> Self:
        """The images at ``indices``, in that order; ``skipped`` as in the class."""
        part = copy(self)
        part._places, part.skipped = [self._places[index] for index in indices], tuple(skipped)
        return part

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._images[self._places[index]]

    def label_path(self, index: int) -> Path | None:
        """The label map's file; None without one."""
        return self._labels[self._places[index]] if self.has_labels else None

    def name(self, index: int) -> str:
        """The image's name, unique in the split: its file's stem."""
        return self.image_path(index).stem

    def names_digest(self) -> str:
        """A hash of the images' names in their order."""
        names = "\n".join(map(self.name, range(len(self))))
        return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]

    def files_digest(self) -> str:
        """A hash of names, sizes and times of all image and label files, left out ones too."""
        states = [(file.name, *_size_and_time(file)) for file in (*self._images, *self._labels) if file]
        return hashlib.sha256(repr(states).encode(errors="surrogateescape")).hexdigest()[:16]

    def image(self, index: int) -> Image.Image:
        """The RGB image; raises DataError that names the file."""
        return read_image(self.image_path(index))

    def label(self, index: int) -> np.ndarray:
        """Class ids, H×W int32 in the image's size, −1 for void; raises DataError that names the file."""
        path = self.label_path(index)
        if path is None:
            return np.full(self.image(index).size[::-1], VOID, dtype=np.int32)
        return self.class_ids(path)

    def class_ids(self, path: Path) -> np.ndarray:
        """Read a label map's file as ``label`` returns it; raises DataError for an unknown id, too."""
        ids = self.read_ids(path)
        found = self._class_of_id[np.where((ids < 0) | (ids > VOID_ID), VOID_ID + 1, ids)]
        if (unknown := found == _UNKNOWN).any():
            first, *others, last = np.flatnonzero(self._class_of_id != _UNKNOWN)
            known = f"{first} to {max(others, default=first)} and {last}"
            raise DataError(f"{path}: label id {ids[unknown][0]} is out of range: the ids here are {known}")
        return found

    def read_ids(self, path: Path) -> np.ndarray:
        """The ids in a label map's file, H×W."""
        return read_label(path)


def read_sample(dataset: SegmentationDataset, index: int) -> tuple[Image.Image, np.ndarray]:
    """Read image and label map (all void where there is none); raises DataError if their sizes differ."""
    image = dataset.image(index)
    size = (image.height, image.width)
    label = dataset.label(index) if dataset.label_path(index) else np.full(size, VOID, dtype=np.int32)
    if label.shape != size:
        transposed = label.shape == size[::-1]
        hint = "; apply the EXIF rotation to the image's pixels, e.g. with `mogrify -auto-orient`" if transposed else ""
        raise DataError(
            f"{dataset.image_path(index)}: the label map is {label.shape[1]}×{label.shape[0]} "
            f"pixels, its image {image.width}×{image.height}{hint}"
        )
    return image, label


def incomplete(root: Path, problem: str) -> DataError:
    """An error that tells how to fetch the dataset in ``root``, again if the folder exists."""
    again = f"move {root} away and fetch it again" if root.is_dir() else "fetch it"
    command = f"python download_datasets.py datasets=[{root.name}] unzip=true pytorch_data_dir={root.parent}"
    return DataError(f"{problem}; {again} with `{command}`, or from a source in docs/data.md")


def require_files(root: Path, files: Sequence[Path]) -> None:
    """Raise DataError that names the first missing file, if any of ``files`` is missing."""
    names: dict[Path, list[str]] = {}
    for file in files:
        names.setdefault(file.parent, []).append(file.name)
    if missing := [file for folder, wanted in names.items() for file in missing_files(folder, wanted)]:
        raise incomplete(root, f"{missing[0]}: no such file ({len(missing)} of {len(files)} are missing)")


def missing_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files that a folder lacks; one listing of names, since a Path per file takes ten times as long."""
    present = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
    return [folder / name for name in names if name not in present]


def read_listing(root: Path, listing: Path) -> list[str]:
    """Read names from a text file, one per line; raises DataError if it is missing or empty."""
    require_files(root, [listing])
    if names := [line for line in name_lines(listing) if line]:
        return names
    raise incomplete(root, f"{listing}: contains no image names")


def _size_and_time(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


def name_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, stripped; raises DataError if it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error
