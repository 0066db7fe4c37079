"""Write the ``mosaics`` dataset: labelled scenes made from photographs in installed packages, without a download.

The folder has the layout of a ``directory`` dataset: ``imgs/{train,val}/00000.jpg``, ``labels/{train,val}/00000.png``
(class ids, uint8), ``classes.txt`` (line = id), and ``mosaics.json``, which records the parameters.
"""

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.data.mosaics.scenes import compose_scene
from eagle.data.mosaics.sources import CLASSES, load_textures
from eagle.errors import ConfigError, DataError

MOSAIC_CLASSES = tuple(entry.name for entry in CLASSES)
MIN_SIZE = 32
MANIFEST = "mosaics.json"
# Increase on every change that alters pixels; existing sets of another version are refused.
GENERATOR_VERSION = 1

_SPLITS = ("train", "val")

logger = logging.getLogger(__name__)


def write_mosaics(directory: Path, n_train: int, n_val: int, size: int, seed: int) -> None:
    """Write the set; do nothing if ``directory`` already contains the same set.

    Scene i of a split depends only on ``seed``, the split and i, so a larger set starts with the smaller one. The
    folder gets its name only when it is complete.

    Args:
        directory: output folder; must not exist, be empty, or contain a set with the same parameters.
        n_train: number of training scenes.
        n_val: number of validation scenes.
        size: side of a scene in pixels, at least ``MIN_SIZE``.
        seed: random seed; equal seeds give equal files (with equal library versions).

    Raises:
        ConfigError: a number is out of range.
        DataError: ``directory`` contains something else, or cannot be written.
    """
    _check_range("n_train", n_train, 0)
    _check_range("n_val", n_val, 0)
    _check_range("size", size, MIN_SIZE)
    _check_range("seed", seed, 0)
    counts = {"train": n_train, "val": n_val}
    manifest = {"generator": GENERATOR_VERSION, "n_train": n_train, "n_val": n_val, "size": size, "seed": seed}
    directory = Path(directory).resolve()
    if _already_written(directory, manifest, counts):
        logger.info("%s: up to date", directory)
        return
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as temporary:
            # A sub-folder, because the temporary folder itself is private to this user.
            unfinished = Path(temporary) / directory.name
            for split in _SPLITS:
                _write_split(unfinished, split, counts[split], size, seed)
            (unfinished / "classes.txt").write_text("\n".join(MOSAIC_CLASSES) + "\n", encoding="utf-8")
            (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            if directory.exists():
                directory.rmdir()
            unfinished.rename(directory)
    except OSError as error:
        raise DataError(f"{directory}: cannot be written ({error.strerror or error}); choose another folder") from error
    logger.info("%s: %d training and %d validation scenes", directory, n_train, n_val)


def _check_range(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name}: {value} is too small; the least is {least}")


def _already_written(directory: Path, manifest: dict[str, Any], counts: dict[str, int]) -> bool:
    """Whether ``directory`` contains the same, complete set; raises DataError if it contains anything else."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    try:
        found = dict(json.loads((directory / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{directory}: exists and is not a mosaics folder; choose another folder") from error
    if found != manifest:
        differing = [
            f"{name} {found.get(name)} instead of {value}"
            for name, value in manifest.items()
            if found.get(name) != value
        ]
        raise DataError(
            f"{directory}: contains mosaics made with {', '.join(differing)}; remove it or choose another folder"
        )
    for split, count in counts.items():
        for kind, pattern in (("imgs", "*.jpg"), ("labels", "*.png")):
            present = len(list((directory / kind / split).glob(pattern)))
            if present != count:
                raise DataError(
                    f"{directory / kind / split}: {present} of {count} files; remove {directory} and start again"
                )
    return True


def _write_split(directory: Path, split: str, count: int, size: int, seed: int) -> None:
    images, labels = directory / "imgs" / split, directory / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    textures = load_textures(split)
    for index in tqdm(range(count), desc=f"mosaics {split}", unit="scene", disable=count == 0):
        rng = np.random.default_rng((seed, _SPLITS.index(split), index))
        image, label = compose_scene(textures, size, rng)
        Image.fromarray(image).save(images / f"{index:05d}.jpg", quality=95)
        Image.fromarray(label).save(labels / f"{index:05d}.png")
