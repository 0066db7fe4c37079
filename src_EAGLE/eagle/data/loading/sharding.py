"""Divide evaluation images among processes; Lightning's distributed sampler would count some twice."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from eagle.errors import ConfigError


class Shard(Sampler[int]):
    """Every ``world_size``-th image from ``rank`` on: each image is in exactly one shard, sizes differ by at most 1.

    Args:
        n_images: size of the dataset.
        rank: rank of this process.
        world_size: number of processes.

    Raises:
        ConfigError: there are fewer images than processes.
    """

    def __init__(self, n_images: int, rank: int, world_size: int) -> None:
        if 0 < n_images < world_size:
            raise ConfigError(f"devices: {world_size} processes cannot share {n_images} images; use {n_images}")
        self._share = range(rank, n_images, world_size)

    def __len__(self) -> int:
        return len(self._share)

    def __iter__(self) -> Iterator[int]:
        return iter(self._share)
