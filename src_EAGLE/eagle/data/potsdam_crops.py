"""Potsdam-3 from the ISPRS benchmark's ``2_Ortho_RGB.zip`` and ``5_Labels_all.zip``.

Each 6000×6000 photograph is halved in size and cut into 15×15 crops of 200×200 pixels, named AREA_ROW_COLUMN after the
photograph, e.g. ``2_10_0_14``. As in IIC, the 14 photographs of the benchmark's test set count as unlabelled, and a
fixed share of the other crops is for validation: with all 38 photographs 4545, 3150 and 855 crops.
"""

import hashlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from scipy.io import savemat
from tqdm import tqdm

from eagle.data.datasets.base import VOID_ID
from eagle.data.images import read_image
from eagle.errors import DataError
from eagle.files import write_text_atomically

CROP, REDUCTION = 200, 2
# Photographs without labels in the benchmark's release for participants.
UNLABELLED = frozenset(
    ("2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13")
)
# 855 of the 5400 labelled crops.
_VALIDATION_SHARE = 19 / 120

# Fine id by 4·red + 2·green + blue, each 0 or 1; black and magenta are no class.
_FINE_ID = np.full(8, VOID_ID, dtype=np.uint8)
_FINE_ID[[0b111, 0b001, 0b011, 0b010, 0b110, 0b100]] = range(6)  # roads, buildings, vegetation, trees, cars, clutter

# Files of the archives, as ``eagle.downloads.archives.unpack`` takes them.
PHOTOGRAPHS_AND_LABELS = {r"(?:.*/)?(top_potsdam_\d+_\d+_(?:RGB|label)\.tif)": r"\1"}


def cut_photographs(folder: Path) -> None:
    """Cut the unpacked photographs in ``folder`` and their labels into crops, list these, and delete the photographs.

    Raises:
        DataError: there are no photographs, a label is missing, or an image is not as expected.
    """
    areas = [path.name.split("_", 2)[2].removesuffix("_RGB.tif") for path in sorted(folder.glob("*_RGB.tif"))]
    if not areas:
        raise DataError("no top_potsdam_AREA_RGB.tif")
    crops: list[str] = []
    for area in tqdm(areas, desc="photographs", unit="file"):
        crops += _write_crops(folder, area)
    for photograph in folder.glob("*.tif"):
        photograph.unlink()
    for name, listed in _lists(crops).items():
        write_text_atomically(folder / f"{name}.txt", "".join(f"{crop}\n" for crop in listed))


def fine_ids(pixels: np.ndarray) -> np.ndarray:
    """Fine ids of a label image's colours, H×W×3 uint8 → H×W uint8: 0 to 5, 255 where the colour is no class's.

    Each channel is rounded to 0 or 255, since some of the benchmark's label images have slightly different colours.
    """
    bits = pixels > 127
    return _FINE_ID[4 * bits[..., 0] + 2 * bits[..., 1] + bits[..., 2]]


def _write_crops(folder: Path, area: str) -> list[str]:
    """Cut one photograph; return the names of its crops."""
    path, label_path = (folder / f"top_potsdam_{area}_{kind}.tif" for kind in ("RGB", "label"))
    image, side = read_image(path), CROP * REDUCTION
    if image.width % side or image.height % side:
        raise DataError(f"{path.name}: {image.width}×{image.height} pixels are no multiple of {side}")
    parts = {"img": np.asarray(image.reduce(REDUCTION))}
    if area not in UNLABELLED:
        if not label_path.is_file():
            raise DataError(f"no {label_path.name}")
        label = read_image(label_path)
        if label.size != image.size:
            raise DataError(f"{label_path.name}: {label.width}×{label.height} pixels, unlike its photograph")
        parts["gt"] = fine_ids(np.asarray(label)[::REDUCTION, ::REDUCTION])
    crops = {}
    for row, column in product(range(image.height // side), range(image.width // side)):
        crops[f"{area}_{row}_{column}"] = np.s_[row * CROP : (row + 1) * CROP, column * CROP : (column + 1) * CROP]
    for key, pixels in parts.items():
        kind = folder / {"img": "imgs", "gt": "gt"}[key]
        kind.mkdir(exist_ok=True)
        for name, place in crops.items():
            savemat(kind / f"{name}.mat", {key: pixels[place]})
    return list(crops)


def _lists(crops: Sequence[str]) -> dict[str, list[str]]:
    """Names by list; the validation crops are those whose hashes come first, so that every run draws the same."""
    unlabelled = [crop for crop in crops if crop.rsplit("_", 2)[0] in UNLABELLED]
    labelled = sorted(set(crops) - set(unlabelled), key=lambda crop: hashlib.sha256(crop.encode()).hexdigest())
    n_test = round(len(labelled) * _VALIDATION_SHARE)
    return {
        "labelled_train": sorted(labelled[n_test:]),
        "unlabelled_train": unlabelled,
        "labelled_test": sorted(labelled[:n_test]),
    }
