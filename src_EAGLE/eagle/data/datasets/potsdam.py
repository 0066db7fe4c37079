"""Potsdam-3: aerial tiles of the ISPRS benchmark, prepared by IIC and distributed by STEGO.

``potsdam/imgs/NAME.mat`` (key ``img``, H×W×4 uint8: RGB and infrared; infrared is dropped),
``potsdam/gt/NAME.mat`` (key ``gt``, H×W fine ids, 255 = void) and the lists ``labelled_train.txt``,
``unlabelled_train.txt`` and ``labelled_test.txt``. Training reads the labelled list, as the released EAGLE and STEGO
do; ``potsdam_unlabelled`` adds the unlabelled list, whose tiles have void labels. Validation reads the test list.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from eagle.data.datasets.base import VOID, VOID_ID, Classes, SegmentationDataset, read_listing, require_files
from eagle.errors import DataError, one_line

# ISPRS colours of impervious surfaces, buildings and trees.
POTSDAM_CLASSES = Classes(
    ("roads and cars", "buildings and clutter", "vegetation and trees"),
    np.array([(255, 255, 255), (0, 0, 255), (0, 255, 0)], dtype=np.uint8),
)

_ROADS, _BUILDINGS, _VEGETATION, _TREES, _CARS, _CLUTTER = range(6)
_CLASS_OF_ID = {_ROADS: 0, _CARS: 0, _BUILDINGS: 1, _CLUTTER: 1, _VEGETATION: 2, _TREES: 2, VOID_ID: VOID}


class Potsdam(SegmentationDataset):
    """Tiles in the given order."""

    def image(self, index: int) -> Image.Image:
        """The RGB image, the first three channels of the file."""
        path = self.image_path(index)
        channels = _read_mat(path, "img", 3)
        if channels.shape[2] < 3 or channels.dtype != np.uint8:
            raise DataError(f"{path}: 'img' is {channels.shape} {channels.dtype}, not RGB in uint8; replace the file")
        return Image.fromarray(np.ascontiguousarray(channels[:, :, :3]))

    def read_ids(self, path: Path) -> np.ndarray:
        """Fine ids."""
        return _read_mat(path, "gt", 2).astype(np.int64)


def open_potsdam(root: Path, split: str, include_unlabelled: bool = False) -> Potsdam:
    """Open a split of ``potsdam``; raises DataError if a list or a listed file is missing.

    With ``include_unlabelled`` the training split includes the tiles without labels.
    """
    labelled = read_listing(root, root / ("labelled_train.txt" if split == "train" else "labelled_test.txt"))
    with_unlabelled = include_unlabelled and split == "train"
    unlabelled = read_listing(root, root / "unlabelled_train.txt") if with_unlabelled else []
    images = [root / "imgs" / f"{name}.mat" for name in (*labelled, *unlabelled)]
    labels = [root / "gt" / f"{name}.mat" for name in labelled]
    require_files(root, [*images, *labels])
    return Potsdam(POTSDAM_CLASSES, images, [*labels, *(None for _ in unlabelled)], _CLASS_OF_ID)


def _read_mat(path: Path, name: str, n_dimensions: int) -> np.ndarray:
    """Read a variable; any defect of the file becomes a DataError that names it."""
    try:
        content = loadmat(path, variable_names=[name])
    except Exception as error:  # scipy raises many exception types for damaged files
        raise DataError(f"{path}: cannot be read as a MATLAB file ({one_line(error)}); repair or remove it") from error
    found = np.asarray(content.get(name))
    if found.ndim != n_dimensions:
        raise DataError(f"{path}: has no variable '{name}' of {n_dimensions} dimensions; replace the file")
    return found
