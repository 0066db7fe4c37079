"""Caches of the frozen backbone's keys, in memory or on disk: each cached image passes the backbone once."""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eagle.distributed import device_rows
from eagle.errors import ConfigError, EagleError
from eagle.models.backbone import KeyBackbone

BYTES_PER_VALUE = 2
GIGABYTE = 1e9


class KeyFiles:
    """Keys in two files of a folder: ``keys.f16``, a memory map of the rows, and ``done.u8``, a flag per row.

    It takes the place of a dict from row numbers to keys, h×w×C float16. A row is on disk before its flag is set, so a
    killed run leaves only valid rows. Runs that share the folder write identical rows.

    Args:
        folder: holds these two files only; created if missing.
        n_images: number of rows.
        shape: (h, w, C) of a row.

    Raises:
        ConfigError: the disk has no room for the missing rows.
        EagleError: the folder holds something else or cannot be written.
    """

    def __init__(self, folder: Path, n_images: int, shape: tuple[int, int, int]) -> None:
        self._folder = folder
        self._row_bytes = int(np.prod(shape)) * BYTES_PER_VALUE
        sizes = {"keys.f16": n_images * self._row_bytes, "done.u8": n_images}
        done = folder / "done.u8"
        try:
            n_missing = n_images - (np.count_nonzero(np.fromfile(done, np.uint8)) if done.is_file() else 0)
            folder.parent.mkdir(parents=True, exist_ok=True)
            needed, free = n_missing * self._row_bytes, shutil.disk_usage(folder.parent).free
            if needed > free:
                raise ConfigError(
                    f"cache_features: disk needs {needed / GIGABYTE:.1f} GB in {folder.parent}, but "
                    f"{free / GIGABYTE:.1f} GB are free; set cache_dir to another disk, or cache_features=off"
                )
            folder.mkdir(exist_ok=True)
            for name, size in sizes.items():
                with (folder / name).open("ab") as file:
                    if file.tell() == 0:  # zeros; another process may do the same at the same time
                        file.truncate(size)
            if any((folder / name).stat().st_size != size for name, size in sizes.items()):
                raise EagleError(f"{folder}: does not hold the keys of {n_images} images; remove it")
            self._keys = np.memmap(folder / "keys.f16", dtype=np.float16, mode="r", shape=(n_images, *shape))
            self._done = np.memmap(done, dtype=np.uint8, mode="r+", shape=(n_images,))
        except OSError as error:
            raise EagleError(f"{folder}: cannot be used as a cache ({error.strerror or error})") from error

    def __contains__(self, row: int) -> bool:
        return bool(self._done[row])

    def __getitem__(self, row: int) -> np.ndarray:
        return self._keys[row]

    def update(self, rows: Mapping[int, np.ndarray]) -> None:
        """Store keys by row number; raises EagleError if they cannot be written."""
        try:
            # A write through the memory map would kill the process with SIGBUS on a full disk.
            with (self._folder / "keys.f16").open("r+b") as file:
                for row, keys in rows.items():
                    file.seek(row * self._row_bytes)
                    file.write(keys.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EagleError(
                f"{self._folder}: keys cannot be written ({error.strerror or error}); set cache_dir to another disk, "
                "or cache_features=off"
            ) from error
        self._done[list(rows)] = 1


class KeyCache:
    """Returns the keys of images, from the store if they are there.

    Valid only while a row number always stands for the same pixels, i.e. without geometric augmentation.

    Args:
        backbone: computes missing keys.
        store: storage of the keys; None for this process's memory.
    """

    def __init__(self, backbone: KeyBackbone, store: KeyFiles | None = None) -> None:
        self._backbone = backbone
        self._store: dict[int, np.ndarray] | KeyFiles = {} if store is None else store

    def __call__(self, img: Tensor, index: Tensor) -> Tensor:
        """Keys of a batch; only new images pass the backbone.

        Synchronises with the device if an image is new or ``index`` is not on the CPU.

        Args:
            img: B×3×H×W, ImageNet-normalised.
            index: B int64, each image's row in the store.

        Returns:
            K, B×C×h×w float32.
        """
        indices = index.tolist()
        missing = [row for row, image in enumerate(indices) if image not in self._store]
        if missing:
            computed = self._backbone(rows_of(img, missing)).permute(0, 2, 3, 1).half().cpu().contiguous().numpy()
            self._store.update({indices[row]: keys for row, keys in zip(missing, computed, strict=True)})
        # Not torch.stack, which fails on float16 under the CPU's autocast to bfloat16.
        keys = torch.from_numpy(np.stack([self._store[image] for image in indices]))
        if img.is_cuda:
            keys = keys.pin_memory()
        return keys.to(img.device, non_blocking=True).float().permute(0, 3, 1, 2)


@dataclass(frozen=True)
class KeyCaches:
    """The caches of a training run, each None where the backbone computes the keys every time.

    Attributes:
        clean: unaugmented training images, by their index in the dataset.
        views: augmented training images, by their entry ``view``, if augmentations are repeated.
        validation: validation images, by their index in the dataset.
    """

    clean: KeyCache | None = None
    views: KeyCache | None = None
    validation: KeyCache | None = None


class KeyMemory:
    """Remembers keys by pixels and weights, for passes of several segmenters with one backbone over the same images.

    Args:
        most_bytes: of all keys together; further ones are computed each time.
    """

    def __init__(self, most_bytes: int) -> None:
        self._keys: dict[bytes, Tensor] = {}
        self._free = most_bytes

    def attach(self, backbone: KeyBackbone) -> None:
        """Let a backbone take the keys that it, or another with the same weights, computed before."""
        weights, compute = weights_digest(backbone), backbone.forward

        def forward(img: Tensor) -> Tensor:
            shape = f"{tuple(img.shape[1:])} {img.dtype}".encode()
            names = [
                hashlib.sha256(weights + shape + pixels.tobytes()).digest()
                for pixels in img.contiguous().view(torch.uint8).cpu().numpy()
            ]
            missing = [row for row, name in enumerate(names) if name not in self._keys]
            computed = compute(rows_of(img, missing)) if missing else ()
            fresh = {names[row]: keys for row, keys in zip(missing, computed, strict=True)}
            batch = torch.stack([fresh[name] if name in fresh else self._keys[name].to(img.device) for name in names])
            for name, keys in fresh.items():
                if keys.nbytes <= self._free:
                    self._keys[name] = keys.to("cpu", copy=True)
                    self._free -= keys.nbytes
            return batch

        backbone.forward = forward  # type: ignore[method-assign]


def weights_digest(backbone: KeyBackbone) -> bytes:
    """SHA-256 of a backbone's weights, normalisation and key blocks."""
    digest = hashlib.sha256(repr(backbone.key_blocks).encode())
    # The renormalisation is not in the state dict. ImageNet's is the identity, which has no buffers.
    for name, tensor in (*backbone.state_dict().items(), *backbone.normalization.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def rows_of(batch: Tensor, rows: Sequence[int]) -> Tensor:
    """The given rows of a batch, without synchronising with the device."""
    if list(rows) == list(range(len(batch))):
        return batch
    return batch.index_select(0, device_rows(rows, batch.device))
