"""Every dataset by the name that configurations use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eagle.config_validation import unknown_name_message
from eagle.data.dataset import SegmentationDataset
from eagle.data.directory import DirectoryDataset
from eagle.errors import ConfigError, DataError


def open_dataset(cfg: Any, split: str) -> SegmentationDataset:
    """The split of the dataset that a configuration names.

    Args:
        cfg: has dataset_name, pytorch_data_dir and, for directory datasets, dir_dataset_name and
            dir_dataset_n_classes.
        split: "train" or "val".

    Raises:
        ConfigError: an unknown dataset or a key that the dataset needs is not set.
        DataError: files are missing.
    """
    if cfg.dataset_name not in _OPENERS:
        raise ConfigError(unknown_name_message("dataset_name", cfg.dataset_name, _OPENERS))
    root = Path(cfg.pytorch_data_dir)
    if not root.is_dir():
        raise DataError(
            f"pytorch_data_dir: {root.absolute()} does not exist; set it to the folder that holds the datasets"
        )
    return _OPENERS[cfg.dataset_name](cfg, root, split)


def _open_directory(cfg: Any, root: Path, split: str) -> SegmentationDataset:
    if cfg.dir_dataset_name is None:
        raise ConfigError("dir_dataset_name: set it to the dataset's folder below pytorch_data_dir")
    return DirectoryDataset(root / cfg.dir_dataset_name, split, cfg.dir_dataset_n_classes)


_OPENERS: dict[str, Callable[[Any, Path, str], SegmentationDataset]] = {
    "directory": _open_directory,
}
