"""Share one order of samples among the processes of a run; Lightning's wrapper would hide the epoch from ours."""

import math
from collections.abc import Iterator
from itertools import chain, cycle, islice
from typing import Generic, TypeVar

from torch.utils.data import Sampler

from eagle.errors import ConfigError

Index = TypeVar("Index")


class ShardedSampler(Sampler[Index], Generic[Index]):
    """Every ``world_size``-th sample of another sampler, so that one batch of each process is one global batch.

    Args:
        sampler: gives the same order in every process; its length is known.
        rank: number of this process.
        world_size: number of processes.
        equal_shares: True begins the order again, by ``world_size`` - 1 samples at most, until every process has as
            many, as training needs; False leaves some processes one sample less, so that nothing is counted twice.

    Raises:
        ConfigError: a process would be left without any sample.
    """

    def __init__(self, sampler: Sampler[Index], rank: int, world_size: int, equal_shares: bool) -> None:
        self._sampler = sampler
        self._rank = rank
        self._world_size = world_size
        self._equal_shares = equal_shares
        n_samples = self._n_samples()
        if not equal_shares and 0 < n_samples < world_size:
            raise ConfigError(f"devices: {world_size} processes cannot share {n_samples} images; use {n_samples}")

    def set_epoch(self, epoch: int) -> None:
        """Passed on; called by Lightning before each epoch."""
        if hasattr(self._sampler, "set_epoch"):
            self._sampler.set_epoch(epoch)

    def __len__(self) -> int:
        if self._equal_shares:
            return math.ceil(self._n_samples() / self._world_size)
        return len(range(self._rank, self._n_samples(), self._world_size))

    def __iter__(self) -> Iterator[Index]:
        order = list(self._sampler)
        n_again = -len(order) % self._world_size if self._equal_shares else 0
        return islice(chain(order, islice(cycle(order), n_again)), self._rank, None, self._world_size)

    def _n_samples(self) -> int:
        return len(self._sampler)  # type: ignore[arg-type]
