"""Share evaluated images among the processes of a run; Lightning's way counts some of them twice."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from eagle.errors import ConfigError


class Shard(Sampler[int]):
    """Every ``world_size``-th image in order, so that each is in one process only; shares may differ by one.

    Args:
        n_images: size of the dataset.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        ConfigError: a process would be left without any image.
    """

    def __init__(self, n_images: int, rank: int, world_size: int) -> None:
        if 0 < n_images < world_size:
            raise ConfigError(f"devices: {world_size} processes cannot share {n_images} images; use {n_images}")
        self._share = range(rank, n_images, world_size)

    def __len__(self) -> int:
        return len(self._share)

    def __iter__(self) -> Iterator[int]:
        return iter(self._share)
