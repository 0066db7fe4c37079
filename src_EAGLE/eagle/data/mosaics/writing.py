"""The ``mosaics`` dataset: labelled scenes made of photographs that the dependencies already carry.

It lets the whole pipeline run without a download. The folder has the layout of a ``directory`` dataset:
``imgs/{train,val}/00000.jpg``, ``labels/{train,val}/00000.png`` (class ids, uint8), ``classes.txt`` (line = id), and
``mosaics.json``, which says what the set was made with.
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
# Raise it with every change that alters a pixel, so that sets of different generators are told apart.
GENERATOR_VERSION = 1

_SPLITS = ("train", "val")

logger = logging.getLogger(__name__)


def write_mosaics(directory: Path, n_train: int, n_val: int, size: int, seed: int) -> None:
    """Make the set, or leave it alone where the same one is already there.

    Scene i of a split depends on ``seed``, the split and i only, so a larger set begins with the smaller one. The
    folder appears under its name when it is complete, never before.

    Args:
        directory: folder of the set; must not exist, be empty, or hold a set made with the same values.
        n_train: training scenes.
        n_val: validation scenes.
        size: side of every scene in pixels, at least ``MIN_SIZE``.
        seed: same seed, same bytes (with the same versions of the libraries).

    Raises:
        ConfigError: a number is out of range.
        DataError: ``directory`` holds something else, or cannot be written.
    """
    _check_range("n_train", n_train, 0)
    _check_range("n_val", n_val, 0)
    _check_range("size", size, MIN_SIZE)
    _check_range("seed", seed, 0)
    counts = {"train": n_train, "val": n_val}
    manifest = {"generator": GENERATOR_VERSION, "n_train": n_train, "n_val": n_val, "size": size, "seed": seed}
    directory = Path(directory).resolve()
    if _is_there(directory, manifest, counts):
        logger.info("%s: up to date", directory)
        return
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as temporary:
            # Not the temporary folder itself: that one is closed to other users.
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


def _is_there(directory: Path, manifest: dict[str, Any], counts: dict[str, int]) -> bool:
    """Whether the same set is complete in ``directory``; raises DataError where anything else is."""
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
            f"{directory}: holds mosaics made with {', '.join(differing)}; remove it or choose another folder"
        )
    for split, count in counts.items():
        for kind, pattern in (("imgs", "*.jpg"), ("labels", "*.png")):
            present = len(list((directory / kind / split).glob(pattern)))
            if present != count:
                raise DataError(
                    f"{directory / kind / split}: {present} of {count} files; remove {directory} and make it again"
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
