"""Shuffled draws whose augmentation seeds travel with them, so that worker processes do not change a run."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from eagle.data.views import Draw


class SeededSampler(Sampler[Draw]):
    """A new order and new augmentation seeds for every epoch, all decided by ``seed`` and the epoch's number.

    Args:
        n_images: size of the dataset.
        seed: of the run.
    """

    def __init__(self, n_images: int, seed: int) -> None:
        self._n_images = n_images
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch; where nobody calls it, epochs count themselves."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._n_images

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._n_images, generator=generator).tolist()
        self._epoch += 1
        seeds = torch.randint(2**31, (self._n_images,), generator=generator).tolist()
        return map(Draw, order, seeds)
