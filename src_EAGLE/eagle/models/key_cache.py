"""Caches of the frozen backbone's keys: each cached image passes the backbone once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eagle.models.backbone import KeyBackbone


class KeyStore(Protocol):
    """Storage of keys on the CPU, h×w×C float16 per row; each row belongs to one image or augmented view."""

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Positions in ``indices`` of images that are not stored yet."""

    def put(self, indices: Sequence[int], keys: Tensor) -> None:
        """Store B×h×w×C float16 keys."""

    def get(self, indices: Sequence[int]) -> Tensor:
        """B×h×w×C float16 keys of stored images."""


class MemoryStore:
    """A KeyStore in this process's memory."""

    def __init__(self) -> None:
        self._keys: dict[int, Tensor] = {}

    def missing(self, indices: Sequence[int]) -> list[int]:
        """See KeyStore."""
        return [row for row, index in enumerate(indices) if index not in self._keys]

    def put(self, indices: Sequence[int], keys: Tensor) -> None:
        """See KeyStore."""
        self._keys |= {index: row.clone() for index, row in zip(indices, keys, strict=True)}

    def get(self, indices: Sequence[int]) -> Tensor:
        """See KeyStore."""
        rows = [self._keys[index] for index in indices]
        # Not torch.stack, which fails on float16 under the CPU's autocast to bfloat16.
        batch = rows[0].new_empty(len(rows), *rows[0].shape)
        for row, keys in enumerate(rows):
            batch[row] = keys
        return batch


class KeyCache:
    """Returns the keys of images, from the store if they are there.

    Valid only while a row number always stands for the same pixels, i.e. without geometric augmentation.

    Args:
        backbone: computes missing keys.
        store: storage of the keys; None for this process's memory.
    """

    def __init__(self, backbone: KeyBackbone, store: KeyStore | None = None) -> None:
        self._backbone = backbone
        self._store = MemoryStore() if store is None else store

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
        missing = self._store.missing(indices)
        if missing:
            computed = self._backbone(rows_of(img, missing)).permute(0, 2, 3, 1).half().cpu()
            self._store.put([indices[row] for row in missing], computed)
        keys = self._store.get(indices)
        if img.is_cuda:
            keys = keys.pin_memory()
        return keys.to(img.device, non_blocking=True).float().permute(0, 3, 1, 2)


@dataclass(frozen=True)
class KeyCaches:
    """The caches of a training run.

    Attributes:
        clean: unaugmented training images, by their index in the dataset.
        views: augmented training images, by their entry ``view``; None if augmentations are not repeated.
        validation: validation images, by their index in the dataset.
    """

    clean: KeyCache
    views: KeyCache | None
    validation: KeyCache


def rows_of(batch: Tensor, rows: Sequence[int]) -> Tensor:
    """The given rows of a batch, without synchronising with the device."""
    if list(rows) == list(range(len(batch))):
        return batch
    return batch.index_select(0, device_rows(rows, batch.device))


def device_rows(rows: Sequence[int], device: torch.device) -> Tensor:
    """Row numbers as an int64 tensor on the device, without synchronising with it."""
    return torch.tensor(list(rows), dtype=torch.long).to(device, non_blocking=True)
