"""Caches of a run's keys: check the memory for them, or open a folder named by a hash of all their inputs."""

import hashlib
from math import prod
from pathlib import Path
from typing import Any

from eagle.data.datasets.base import SegmentationDataset
from eagle.data.loading.transforms import CLEAN_VIEW
from eagle.errors import ConfigError
from eagle.evaluation.kmeans import MOST_IMAGES
from eagle.models.backbone import KeyBackbone
from eagle.models.key_cache import KeyCache
from eagle.models.key_files import BYTES_PER_VALUE, GIGABYTE, KeyFiles
from eagle.training.memory import available_memory

# Hexadecimal digits of the SHA-256 in a folder's name.
NAME_LENGTH = 24


def open_disk_cache(cfg: Any, backbone: KeyBackbone, dataset: SegmentationDataset) -> KeyCache:
    """Open the cache of the keys of unaugmented images below ``cache_dir``.

    Other weights, images, resolutions or precisions use another folder.

    Args:
        cfg: has cache_dir, res, precision, matmul_precision, model_type, dino_patch_size and backbone_kwargs.
        backbone: with its weights loaded.
        dataset: the training images.

    Raises:
        ConfigError: the disk is too small, or the dataset does not name its files.
        EagleError: the folder cannot be used.
    """
    folder = Path(cfg.cache_dir).absolute() / f"keys_{_fingerprint(cfg, backbone, dataset)}"
    return KeyCache(backbone, KeyFiles(folder, len(dataset), _key_shape(cfg, backbone)))


def memory_to_hold(cfg: Any, backbone: KeyBackbone, n_images: int, n_steps: int, n_processes: int) -> int:
    """Return how many bytes ``cache_features=ram`` will hold on this machine by the end of the run.

    Args:
        cfg: has res, batch_size and cluster_probe_fit.
        backbone: computes the keys.
        n_images: size of the training set.
        n_steps: remaining steps; each process caches the images of its batches.
        n_processes: processes on this machine, each with its own cache.

    Raises:
        ConfigError: the machine has too little memory.
    """
    n_fitted = MOST_IMAGES if cfg.cluster_probe_fit == "kmeans" else 0
    n_kept = n_processes * min(n_images, n_steps * cfg.batch_size + n_fitted)
    needed, free = n_kept * prod(_key_shape(cfg, backbone)) * BYTES_PER_VALUE, available_memory()
    if needed > free:
        raise ConfigError(
            f"cache_features: ram needs {needed / GIGABYTE:.1f} GB of memory for the keys of {n_kept} images, but only "
            f"{free / GIGABYTE:.1f} GB are free; set cache_features=disk, or off"
        )
    return needed


def _key_shape(cfg: Any, backbone: KeyBackbone) -> tuple[int, int, int]:
    side = cfg.res // backbone.patch_size
    return side, side, backbone.n_feats


def _fingerprint(cfg: Any, backbone: KeyBackbone, dataset: SegmentationDataset) -> str:
    """Hash the model, its weights and key blocks, the view, and each image's path, size and modification time."""
    digest = hashlib.sha256()
    model = (cfg.model_type, cfg.dino_patch_size, dict(cfg.backbone_kwargs), backbone.key_blocks)
    digest.update(repr((model, CLEAN_VIEW, cfg.res, cfg.precision, cfg.matmul_precision)).encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for index in range(len(dataset)):
        path = dataset.image_path(index)
        if path is None:
            raise ConfigError("cache_features: this dataset does not name its files; use ram or off")
        status = path.stat()
        digest.update(f"{path.absolute()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:NAME_LENGTH]
