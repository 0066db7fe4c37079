"""Keys of images that the frozen backbone has already seen."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from eagle.models.backbone import KeyBackbone


class KeyStore(Protocol):
    """Where keys are kept: half precision, h×w×C an image, by the image's number."""

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Positions in ``numbers`` of the images that are not there yet."""

    def put(self, numbers: Sequence[int], keys: Tensor) -> None:
        """Keep B×h×w×C float16 keys, on the CPU."""

    def get(self, numbers: Sequence[int]) -> Tensor:
        """B×h×w×C float16 keys of images that are there, on the CPU."""


class MemoryStore:
    """A KeyStore in this process's memory."""

    def __init__(self) -> None:
        self._keys: dict[int, Tensor] = {}

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """See KeyStore."""
        return [row for row, number in enumerate(numbers) if number not in self._keys]

    def put(self, numbers: Sequence[int], keys: Tensor) -> None:
        """See KeyStore."""
        self._keys |= {number: row.clone() for number, row in zip(numbers, keys, strict=True)}

    def get(self, numbers: Sequence[int]) -> Tensor:
        """See KeyStore."""
        return torch.stack([self._keys[number] for number in numbers])


class KeyCache:
    """Gives the keys of clean training images; each image passes the backbone once.

    Right only while an image number always means the same pixels, i.e. without geometric augmentation.

    Args:
        backbone: computes what is not there yet.
        store: where keys are kept; None for this process's memory.
    """

    def __init__(self, backbone: KeyBackbone, store: KeyStore | None = None) -> None:
        self._backbone = backbone
        self._store = MemoryStore() if store is None else store

    def __call__(self, img: Tensor, index: Tensor) -> Tensor:
        """K, B×C×h×w float32, of B×3×H×W images with the numbers B ``index``; only new images pass the backbone.

        The host waits for the device where an image is new or ``index`` is not on the CPU.
        """
        numbers = index.tolist()
        missing = self._store.missing(numbers)
        if missing:
            computed = self._backbone(rows_of(img, missing)).permute(0, 2, 3, 1).half().cpu()
            self._store.put([numbers[row] for row in missing], computed)
        keys = self._store.get(numbers)
        if img.is_cuda:
            keys = keys.pin_memory()
        return keys.to(img.device, non_blocking=True).float().permute(0, 3, 1, 2)


def rows_of(batch: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows of a batch that the host names, taken without waiting for the device."""
    if len(rows) == len(batch) and list(rows) == list(range(len(batch))):
        return batch
    return batch.index_select(0, device_rows(rows, batch.device))


def device_rows(rows: Sequence[int], device: torch.device) -> Tensor:
    """Row numbers as an int64 tensor on the device, copied without waiting for it."""
    return torch.tensor(list(rows), dtype=torch.long).to(device, non_blocking=True)
