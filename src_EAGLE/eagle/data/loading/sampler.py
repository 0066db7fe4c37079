"""The order of a run's images, whose augmentation seeds travel with them, so that worker processes do not change it."""

from collections.abc import Iterator
from itertools import chain, count, islice

import torch
from torch.utils.data import Sampler

from eagle.data.loading.views import Draw


class TrainingBatches(Sampler[list[Draw]]):
    """The batches of a run without an end: epoch after epoch in a new order, each epoch's last batch as small as it is.

    To Lightning a run is one epoch. A resumed run just begins further on, in whatever batch it was stopped.

    Args:
        n_images: size of the dataset.
        seed: of the run; with the epoch's number it decides order and augmentation seeds.
        batch_size: draws of each process.
        batches_done: batches that are passed over.
        rank: number of this process.
        world_size: number of processes, to which each epoch's draws are dealt out in turn, so that one batch of each is
            one batch of the whole; the epoch begins again, by ``world_size`` - 1 draws at most, until all have as many.
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
        """Batches in which each process sees its share of all images once."""
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
    """Every image once, in an order and with augmentation seeds that ``seed`` and ``epoch`` decide."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(n_images, generator=generator).tolist()
    seeds = torch.randint(2**31, (n_images,), generator=generator).tolist()
    return list(map(Draw, order, seeds))
