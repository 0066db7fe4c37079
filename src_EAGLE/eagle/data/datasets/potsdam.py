"""Potsdam-3, aerial tiles of the ISPRS benchmark, as IIC prepared and STEGO published them.

``potsdam``: ``potsdam/imgs/NAME.mat`` (key ``img``, H×W×4 uint8: RGB and infrared, which is left out),
``potsdam/gt/NAME.mat`` (key ``gt``, H×W fine ids, 255 = void) and the lists ``labelled_train.txt``,
``unlabelled_train.txt`` and ``labelled_test.txt``. Training takes the labelled list, as EAGLE and STEGO do; the
unlabelled list is added by ``potsdam_unlabelled``, and its tiles are void to the probes. Validation is the test list.

``potsdamraw``: every photograph cut into 15×15 tiles, ``potsdamraw/processed/{imgs,gt}/PHOTOGRAPH_ROW_COLUMN.mat``,
without lists; as in STEGO both splits are all tiles.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from eagle.data.datasets.archive_files import fetch_command, read_listing, require_files, require_folder
from eagle.data.datasets.base import VOID, Classes, SegmentationDataset
from eagle.data.datasets.label_ids import IdTable
from eagle.errors import DataError

# ISPRS's colours of impervious surfaces, buildings and trees.
POTSDAM_CLASSES = Classes(
    ("roads and cars", "buildings and clutter", "vegetation and trees"),
    np.array([(255, 255, 255), (0, 0, 255), (0, 255, 0)], dtype=np.uint8),
)
N_PHOTOGRAPHS, N_ROWS, N_COLUMNS = 38, 15, 15

_ROADS, _BUILDINGS, _VEGETATION, _TREES, _CARS, _CLUTTER = range(6)
_TO_CLASS = IdTable({_ROADS: 0, _CARS: 0, _BUILDINGS: 1, _CLUTTER: 1, _VEGETATION: 2, _TREES: 2, 255: VOID})


class Tile(NamedTuple):
    """An image file and its label file; None where the tile has no labels."""

    image: Path
    label: Path | None


class Potsdam(SegmentationDataset):
    """Tiles in a given order; those without a label file are void all over.

    Args:
        tiles: the files.
    """

    classes = POTSDAM_CLASSES
    has_labels = True

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self._tiles = tiles

    def __len__(self) -> int:
        return len(self._tiles)

    def name(self, index: int) -> str:
        """The file's stem."""
        return self._tiles[index].image.stem

    def image(self, index: int) -> Image.Image:
        """The RGB image, the first three channels of the file."""
        path = self._tiles[index].image
        channels = _read_mat(path, "img")
        if channels.ndim != 3 or channels.shape[2] < 3 or channels.dtype != np.uint8:
            raise DataError(f"{path}: 'img' is {channels.shape} {channels.dtype}, not height × width × 3 or more uint8")
        return Image.fromarray(np.ascontiguousarray(channels[:, :, :3]))

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._tiles[index].image

    def label(self, index: int) -> np.ndarray:
        """Class ids, all void for a tile without labels; raises DataError for an id that is no fine class."""
        path = self._tiles[index].label
        if path is None:
            # From the file's header: the image itself was read just before.
            return np.full(_mat_shape(self._tiles[index].image, "img")[:2], VOID, dtype=np.int32)
        ids = _read_mat(path, "gt")
        if ids.ndim != 2:
            raise DataError(f"{path}: 'gt' has the shape {ids.shape}, not height × width")
        return _TO_CLASS(ids.astype(np.int64), path)


def open_potsdam(root: Path, split: str, unlabelled_too: bool = False) -> Potsdam:
    """The split of ``potsdam``; raises DataError where a list or a file that one names is missing.

    Args:
        root: the dataset's folder.
        split: "train" or "val".
        unlabelled_too: whether the tiles without labels belong to the training split.
    """
    labelled = read_listing(root, root / ("labelled_train.txt" if split == "train" else "labelled_test.txt"))
    with_unlabelled = unlabelled_too and split == "train"
    unlabelled = read_listing(root, root / "unlabelled_train.txt") if with_unlabelled else []
    require_files(root, [root / "imgs" / f"{name}.mat" for name in (*labelled, *unlabelled)])
    require_files(root, [root / "gt" / f"{name}.mat" for name in labelled])
    return Potsdam(
        [Tile(root / "imgs" / f"{name}.mat", root / "gt" / f"{name}.mat") for name in labelled]
        + [Tile(root / "imgs" / f"{name}.mat", None) for name in unlabelled]
    )


def open_potsdamraw(root: Path) -> Potsdam:
    """The tiles of every photograph that is there; raises DataError where one of a photograph's tiles is missing."""
    images = require_folder(root, root / "processed" / "imgs")
    labels = root / "processed" / "gt"
    there = {path.stem for path in images.glob("*.mat")}
    labelled = {path.stem for path in labels.glob("*.mat")}
    photographs = [number for number in range(N_PHOTOGRAPHS) if any(name.startswith(f"{number}_") for name in there)]
    if not photographs:
        raise DataError(f"{images}: holds no PHOTOGRAPH_ROW_COLUMN.mat; move {root} away and run {fetch_command(root)}")
    names = [f"{i}_{j}_{k}" for i, j, k in product(photographs, range(N_ROWS), range(N_COLUMNS))]
    require_files(root, [images / f"{name}.mat" for name in names])
    return Potsdam([Tile(images / f"{n}.mat", labels / f"{n}.mat" if n in labelled else None) for n in names])


def _read_mat(path: Path, name: str) -> np.ndarray:
    with _errors_name(path):
        content = loadmat(path, variable_names=[name])
    return np.asarray(_variable(content, name, path))


def _mat_shape(path: Path, name: str) -> tuple[int, ...]:
    """The shape of a variable, without reading it."""
    with _errors_name(path):
        shapes = {variable: shape for variable, shape, _ in whosmat(path)}
    return _variable(shapes, name, path)


def _variable(content: Mapping[str, Any], name: str, path: Path) -> Any:
    if name not in content:
        raise DataError(f"{path}: has no variable '{name}'; replace the file")
    return content[name]


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Turn what scipy raises into a DataError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # scipy raises a dozen kinds for damaged files
        reason = str(error).splitlines()[0] if isinstance(error, MatReadError) and str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as a MATLAB file ({reason}); repair or remove it") from error
