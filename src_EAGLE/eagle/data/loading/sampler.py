"""Image order and augmentation seeds of a training run, independent of the number of loader workers."""

from collections.abc import Iterator
from itertools import chain, count, islice

import torch
from torch.utils.data import Sampler

from eagle.data.loading.views import Draw


class TrainingBatches(Sampler[list[Draw]]):
    """Endless batches for training, one per step: a new image order in each epoch, whose last batch may be smaller.

    Lightning sees the whole run as one epoch. A resumed run skips the batches of the steps already done.

    Args:
        n_images: size of the dataset.
        seed: run seed; with the epoch number it determines order and augmentation seeds.
        batch_size: draws per process and batch.
        batches_done: number of batches to skip.
        rank: rank of this process.
        world_size: number of processes. Rank r takes every ``world_size``-th draw of an epoch, starting at r. The epoch
            is padded with its first draws, ``world_size`` − 1 at most, so that all ranks have equally many.
    """

    def __init__(
        self, n_images: int, seed: int, batch_size: int, batches_done: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self._n_images = n_images
        self._seed = seed
        self._batch_size = batch_size
        self._batches_done = batches_done
        self._rank = rank
        self._world_size = world_size

    @property
    def batches_per_epoch(self) -> int:
        """Batches per process in which all processes together see every image once."""
        share = -(-self._n_images // self._world_size)
        return -(-share // self._batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, n_skipped = divmod(self._batches_done, self.batches_per_epoch)
        batches = chain.from_iterable(map(self._batches_of_epoch, count(epoch)))
        return islice(batches, n_skipped, None)

    def _batches_of_epoch(self, epoch: int) -> Iterator[list[Draw]]:
        draws = epoch_draws(self._n_images, self._seed, epoch)
        while len(draws) % self._world_size:
            draws.append(draws[len(draws) % self._n_images])
        own = iter(draws[self._rank :: self._world_size])
        while batch := list(islice(own, self._batch_size)):
            yield batch


def epoch_draws(n_images: int, seed: int, epoch: int) -> list[Draw]:
    """Each image once; ``seed`` and ``epoch`` determine the order and the augmentation seeds."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(n_images, generator=generator).tolist()
    seeds = torch.randint(2**31, (n_images,), generator=generator).tolist()
    return list(map(Draw, order, seeds))
