"""Sources of the images to draw: files and folders, the bundled photographs, or a split of a dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from eagle.config.schema import DatasetConfig
from eagle.config.validation import with_overrides
from eagle.data.bundled import bundled_photographs
from eagle.data.datasets.catalog import open_dataset
from eagle.data.images import read_photograph
from eagle.data.named_files import named_files, output_names
from eagle.errors import ConfigError


@dataclass(frozen=True)
class NamedImage:
    """An image that is read when needed.

    Attributes:
        name: unique, for captions and file names.
        read: returns the RGB image; raises DataError naming the file.
    """

    name: str
    read: Callable[[], Image.Image]


def named_images(cfg: DictConfig) -> list[NamedImage]:
    """All images that a configuration names; empty if it names none.

    Args:
        cfg: with ``images``, ``bundled``, ``split`` and the keys of DatasetConfig.

    Raises:
        ConfigError: both files and a dataset are named.
        DataError: a file or the dataset is missing.
    """
    files = named_files(cfg.images) + (bundled_photographs() if cfg.bundled else [])
    names_dataset = cfg.dir_dataset_name is not None or cfg.dataset_name != DatasetConfig.dataset_name
    if files and names_dataset:
        raise ConfigError("images: name files or a dataset, not both")
    if names_dataset:
        return _dataset_images(cfg, cfg.split)
    names = output_names(files)
    return [NamedImage(name, partial(read_photograph, path)) for path, name in zip(files, names, strict=True)]


def images_of_run(run: DictConfig, cfg: DictConfig) -> list[NamedImage]:
    """The images of a split of the dataset that a run was trained on.

    Args:
        run: the configuration of the run.
        cfg: with ``split``, and ``pytorch_data_dir`` in case the folder of the run does not exist here.

    Raises:
        DataError: the dataset is missing.
    """
    is_here = Path(run.pytorch_data_dir).is_dir()
    return _dataset_images(run if is_here else with_overrides(run, pytorch_data_dir=cfg.pytorch_data_dir), cfg.split)


def spread(images: list[NamedImage], n_max: int | None) -> list[NamedImage]:
    """Select at most ``n_max`` images at even distances; None selects all."""
    if n_max is None or n_max >= len(images):
        return images
    return [images[index] for index in np.linspace(0, len(images) - 1, n_max).round().astype(int).tolist()]


def _dataset_images(source: Any, split: str) -> list[NamedImage]:
    dataset = open_dataset(source, split)
    return [NamedImage(dataset.name(index), partial(dataset.image, index)) for index in range(len(dataset))]
