"""Which images are looked at: files and folders, the bundled photographs, or a split of a dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image, ImageOps

from eagle.config.schema import DatasetConfig
from eagle.config.validation import with_overrides
from eagle.data.bundled import bundled_photographs
from eagle.data.datasets.catalog import open_dataset
from eagle.data.images import read_image
from eagle.data.named_files import named_files, output_names
from eagle.errors import ConfigError


@dataclass(frozen=True)
class NamedImage:
    """An image that is not read yet.

    Attributes:
        name: for captions and files, unique.
        read: gives the RGB image, or raises DataError that names the file.
    """

    name: str
    read: Callable[[], Image.Image]


def named_images(cfg: DictConfig) -> list[NamedImage]:
    """All images that a configuration names by itself; empty where it names none.

    Args:
        cfg: has ``images``, ``bundled``, ``split`` and the keys of DatasetConfig.

    Raises:
        ConfigError: it names both files and a dataset.
        DataError: what it names is not there.
    """
    files = named_files(cfg.images) + (bundled_photographs() if cfg.bundled else [])
    names_dataset = cfg.dir_dataset_name is not None or cfg.dataset_name != DatasetConfig.dataset_name
    if files and names_dataset:
        raise ConfigError("images: name files or a dataset, not both")
    if names_dataset:
        return _dataset_images(cfg, cfg.split)
    names = output_names(files)
    return [NamedImage(name, partial(_upright, path)) for path, name in zip(files, names, strict=True)]


def images_trained_beside(run: DictConfig, cfg: DictConfig) -> list[NamedImage]:
    """A split of the dataset that a run was trained on.

    Args:
        run: the run's configuration.
        cfg: has ``split``, and ``pytorch_data_dir`` for where the run's is on another machine.

    Raises:
        DataError: the dataset is not there.
    """
    is_here = Path(run.pytorch_data_dir).is_dir()
    return _dataset_images(run if is_here else with_overrides(run, pytorch_data_dir=cfg.pytorch_data_dir), cfg.split)


def spread(images: list[NamedImage], most: int | None) -> list[NamedImage]:
    """At most so many of the images, evenly spread over them; None for all."""
    if most is None or most >= len(images):
        return images
    return [images[index] for index in np.linspace(0, len(images) - 1, most).round().astype(int).tolist()]


def _dataset_images(source: Any, split: str) -> list[NamedImage]:
    dataset = open_dataset(source, split)
    return [NamedImage(dataset.name(index), partial(dataset.image, index)) for index in range(len(dataset))]


def _upright(path: Path) -> Image.Image:
    """As a viewer shows it."""
    return ImageOps.exif_transpose(read_image(path))
