"""Open datasets by the name used in configurations."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.datasets.cityscapes import Cityscapes, cityscapes_classes
from eagle.data.datasets.cocostuff import VARIANTS, CocoStuff, cocostuff_classes
from eagle.data.datasets.cropped import CroppedDataset, CropSet
from eagle.data.datasets.directory import DirectoryDataset, directory_classes
from eagle.data.datasets.potsdam import POTSDAM_CLASSES, open_potsdam
from eagle.errors import ConfigError, DataError, unknown_name_message

# The released code trains on crops of these datasets and ignores crop_type for the others.
RELEASED_CROPS = ("cocostuff27", "cityscapes")

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """How to open a split's whole (uncropped) images, and how to know the classes without reading images.

    Both functions take the configuration and ``pytorch_data_dir``.
    """

    open: Callable[[Any, Path, str], SegmentationDataset]
    classes: Callable[[Any, Path], Classes]


def open_dataset(cfg: Any, split: str) -> SegmentationDataset:
    """Open a split of the dataset of a DatasetConfig; with crop_type set, the training split consists of crops.

    A dataset that the released code does not crop is read as whole images where no crops of it exist.

    Raises:
        ConfigError: the dataset is unknown, or a key that it needs is not set.
        DataError: files are missing, or the crops are incomplete.
    """
    if cfg.crop_type is None or split != "train":
        return open_whole_dataset(cfg, split)
    entry, root = _entry_and_root(cfg)
    crops = crop_set(cfg)
    if cfg.dataset_name not in RELEASED_CROPS and not crops.folder.is_dir():
        logger.warning(
            "crop_type=%s is ignored, as in the released code: %s does not exist", cfg.crop_type, crops.folder
        )
        return entry.open(cfg, root, split)
    return CroppedDataset(crops, split, entry.classes(cfg, root))


def open_whole_dataset(cfg: Any, split: str) -> SegmentationDataset:
    """Like open_dataset, but always whole images, even if crop_type is set."""
    entry, root = _entry_and_root(cfg)
    return entry.open(cfg, root, split)


def known_classes(cfg: Any) -> Classes | None:
    """The classes of a public dataset, without its files; None for a directory dataset or an unknown name."""
    entry = _ENTRIES.get(cfg.dataset_name)
    return None if entry is None or cfg.dataset_name == "directory" else entry.classes(cfg, Path())


def crop_set(cfg: Any) -> CropSet:
    """Where a configuration's crops lie, and the command that makes them."""
    keys = ["dataset_name", "crop_type", "crop_ratio", "pytorch_data_dir"]
    keys += ["dir_dataset_name", "dir_dataset_n_classes"] if cfg.dataset_name == "directory" else []
    words = " ".join(f"{key}={cfg[key]}" for key in keys if cfg[key] is not None)
    folder = Path(cfg.pytorch_data_dir) / "cropped" / f"{dataset_label(cfg)}_{cfg.crop_type}_crop_{cfg.crop_ratio}"
    return CropSet(folder, f"`python crop_datasets.py {words}`")


def dataset_label(cfg: Any) -> str:
    """The dataset's name; for a directory dataset, its folder's name."""
    return str(Path(_directory_name(cfg))) if cfg.dataset_name == "directory" else str(cfg.dataset_name)


def _entry_and_root(cfg: Any) -> tuple[Entry, Path]:
    if cfg.dataset_name not in _ENTRIES:
        raise ConfigError(unknown_name_message("dataset_name", cfg.dataset_name, _ENTRIES))
    root = Path(cfg.pytorch_data_dir)
    if not root.is_dir():
        raise DataError(
            f"pytorch_data_dir: {root.absolute()} does not exist; set it to the folder that holds the datasets"
        )
    return _ENTRIES[cfg.dataset_name], root


def _directory_name(cfg: Any) -> str:
    if cfg.dir_dataset_name is None:
        raise ConfigError("dir_dataset_name: set it to the dataset's folder below pytorch_data_dir")
    return str(cfg.dir_dataset_name)


def _cocostuff(variant: str) -> Entry:
    return Entry(
        lambda _cfg, root, split: CocoStuff(root / "cocostuff", split, variant),
        lambda _cfg, _root: cocostuff_classes(variant),
    )


_ENTRIES = {
    **{variant: _cocostuff(variant) for variant in VARIANTS},
    "cityscapes": Entry(
        lambda _cfg, root, split: Cityscapes(root / "cityscapes", split), lambda _cfg, _root: cityscapes_classes()
    ),
    "potsdam": Entry(
        lambda cfg, root, split: open_potsdam(root / "potsdam", split, cfg.potsdam_unlabelled),
        lambda _cfg, _root: POTSDAM_CLASSES,
    ),
    "directory": Entry(
        lambda cfg, root, split: DirectoryDataset(root / _directory_name(cfg), split, cfg.dir_dataset_n_classes),
        lambda cfg, root: directory_classes(root / _directory_name(cfg), cfg.dir_dataset_n_classes),
    ),
}
