"""Caches of a run's keys: check the memory for them, or open a folder named by a hash of all their inputs."""

import hashlib
import os
from math import prod
from pathlib import Path
from typing import Any

import psutil

from eagle.config.schema import TrainConfig, keys_with
from eagle.config.validation import plain
from eagle.data.datasets.base import SegmentationDataset
from eagle.data.views import AUGMENTATION, CLEAN_VIEW
from eagle.errors import ConfigError
from eagle.models.backbone import KeyBackbone
from eagle.models.key_cache import BYTES_PER_VALUE, GIGABYTE, KeyCache, KeyCaches, KeyFiles, weights_digest

# Hexadecimal digits of the SHA-256 in a folder's name.
NAME_LENGTH = 24

OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def open_caches(
    cfg: Any, backbone: KeyBackbone, train_set: SegmentationDataset, val_set: SegmentationDataset
) -> KeyCaches:
    """Open the caches that ``cache_features`` asks for: empty ones in memory, or folders below ``cache_dir``.

    Other weights, images, resolutions, augmentations or precisions use other folders.

    Args:
        cfg: has cache_features (ram or disk), cache_dir, cached_views, photometric, res, val_res, precision,
            matmul_precision, model_type, dino_patch_size and backbone_kwargs.
        backbone: with its weights loaded.
        train_set: the training images.
        val_set: the validation images.

    Raises:
        ConfigError: the disk is too small, or the dataset does not name its files.
        EagleError: a folder cannot be used.
    """

    def cache(dataset: SegmentationDataset, res: int, rows_per_image: int, view: str) -> KeyCache:
        if cfg.cache_features == "ram":
            return KeyCache(backbone)
        folder = Path(cfg.cache_dir).absolute() / f"keys_{_fingerprint(cfg, backbone, dataset, res, view)}"
        return KeyCache(backbone, KeyFiles(folder, rows_per_image * len(dataset), _key_shape(res, backbone)))

    n_views = cfg.cached_views
    augmented = f"{CLEAN_VIEW}; {AUGMENTATION}; {cfg.photometric}, {n_views} views"
    return KeyCaches(
        clean=cache(train_set, cfg.res, 1, CLEAN_VIEW),
        views=cache(train_set, cfg.res, n_views, augmented) if n_views else None,
        validation=cache(val_set, cfg.val_res, 1, CLEAN_VIEW),
    )


def refuse_full_memory(
    cfg: Any, backbone: KeyBackbone, n_images: int, n_validation: int, n_steps: int, n_processes: int
) -> None:
    """Raise ConfigError if ``cache_features=ram`` will need more memory by the end of the run than this machine has.

    Args:
        cfg: has res, val_res, batch_size, and cached_views.
        backbone: computes the keys.
        n_images: size of the training set.
        n_validation: size of the validation set, which the processes share.
        n_steps: remaining steps; each process caches the images of its batches.
        n_processes: processes on this machine, each with its own cache.
    """
    n_drawn = n_steps * cfg.batch_size
    n_rows = n_processes * (min(n_images, n_drawn) + min(n_images * cfg.cached_views, n_drawn))
    n_values = n_rows * prod(_key_shape(cfg.res, backbone)) + n_validation * prod(_key_shape(cfg.val_res, backbone))
    needed, free = n_values * BYTES_PER_VALUE, available_memory()
    if needed > free:
        raise ConfigError(
            f"cache_features: ram needs {needed / GIGABYTE:.1f} GB of memory for the keys of {n_rows} training views "
            f"and {n_validation} validation images, but only {free / GIGABYTE:.1f} GB are free; set "
            "cache_features=disk, or off"
        )


def available_memory() -> int:
    """Return the machine's free memory in bytes, or the limit of this process's control group if that is lower.

    SLURM jobs and containers set such limits. Only control groups of version 2 are read.
    """
    return min([psutil.virtual_memory().available, *_group_limits()])


def _key_shape(res: int, backbone: KeyBackbone) -> tuple[int, int, int]:
    side = res // backbone.patch_size
    return side, side, backbone.n_feats


def _fingerprint(cfg: Any, backbone: KeyBackbone, dataset: SegmentationDataset, res: int, view: str) -> str:
    """Hash all that keys depend on: model, weights, normalisation, view, and each image's path, size and time."""
    digest = hashlib.sha256()
    values = plain(cfg)
    model, numerics = (
        tuple(values[name] for name in keys_with(TrainConfig, role)) for role in ("backbone", "numerics")
    )
    digest.update(repr((model, view, res, *numerics)).encode())
    digest.update(weights_digest(backbone))
    for index in range(len(dataset)):
        path = dataset.image_path(index)
        status = path.stat()
        digest.update(os.fsencode(path.absolute()) + f" {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:NAME_LENGTH]


def _group_limits() -> list[int]:
    """Return the memory limits of this process's control group and its parents."""
    try:
        own = next(line[3:] for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = GROUPS / own.lstrip("/")
    limits = [folder / "memory.max" for folder in (group, *group.parents)]
    texts = [limit.read_text().strip() for limit in limits if limit.is_file()]
    return [int(text) for text in texts if text != "max"]
