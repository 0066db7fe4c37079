"""Lightning data module: the training and validation loaders, and which images each batch and process loads."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader, Sampler, default_collate

from eagle.data.check import inspect_dataset, summary_table
from eagle.data.datasets.base import VOID
from eagle.data.datasets.catalog import open_dataset
from eagle.data.views import Draw, EvaluationViews, TrainingViews, label_tensor
from eagle.errors import ConfigError, DataError
from eagle.processes import load_for_parent

# Images per split decoded before a run. It takes seconds and finds systematic faults, such as a broken export.
_QUICK_CHECK = 256

logger = logging.getLogger(__name__)

# Batch entries that stay on the CPU.
HOST_ENTRIES = ("index", "changed", "view")


class SegmentationDataModule(pl.LightningDataModule):
    """Training and validation data of a TrainConfig; a resumed run skips ``batches_done`` batches.

    Raises:
        ConfigError: the configuration names no known dataset.
        DataError: files are missing.
    """

    def __init__(self, cfg: Any, batches_done: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.batches_done = batches_done
        self.train_set = open_dataset(cfg, "train")
        self.val_set = open_dataset(cfg, "val")

    def check(self) -> None:
        """Decode a sample of both splits and log a summary; with ``on_bad_image=skip``, decode all, leave out the bad.

        Raises:
            DataError: an image is bad and may not be left out, all are bad, or every validation label is void.
        """
        on_bad_image = self.cfg.on_bad_image
        most = None if on_bad_image == "skip" else _QUICK_CHECK
        train = inspect_dataset(self.train_set, "training images", most)
        val = inspect_dataset(self.val_set, "validation images", most)
        rank_zero_only(logger.info)("%s", summary_table({"train": train, "val": val}))
        self.train_set, self.val_set = train.accepted(on_bad_image), val.accepted(on_bad_image)
        for line in (*self.train_set.skipped, *self.val_set.skipped):
            rank_zero_only(logger.warning)("left out: %s", line)
        if self.val_set.has_labels and not self._any_label():
            raise DataError(
                "every validation label is void in the central square of its image, so nothing can be scored; correct "
                "the labels, or remove their folder to train without labels"
            )

    def _any_label(self) -> bool:
        """Whether any pixel of the validation views is labelled; reads labels up to the first that is."""
        labels = (label_tensor(self.val_set.label(i), self.cfg.val_res) for i in range(len(self.val_set)))
        return any(bool((label != VOID).any()) for label in labels)

    def state_dict(self) -> dict[str, Any]:
        """Number and hash of the names of the training images, which decide their order; Lightning saves it."""
        return {"n_images": len(self.train_set), "names": self.train_set.names_digest()}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch except HOST_ENTRIES, which the CPU reads: copying them back would synchronise the device."""
        kept = {name: batch[name] for name in HOST_ENTRIES if name in batch}
        return super().transfer_batch_to_device(batch, device, dataloader_idx) | kept

    def train_dataloader(self) -> DataLoader:
        """Endless shuffled training views."""
        cfg = self.cfg
        views = TrainingViews(self.train_set, cfg.res, cfg.photometric, cfg.cached_views)
        batches = TrainingBatches(len(views), cfg.seed, cfg.batch_size, self.batches_done, *self._rank_and_world_size())
        return DataLoader(views, batch_sampler=batches, **_loader_options(cfg.num_workers))

    def val_dataloader(self) -> DataLoader:
        """Validation views in dataset order."""
        cfg, views = self.cfg, EvaluationViews(self.val_set, self.cfg.val_res)
        return evaluation_loader(views, cfg.batch_size, cfg.num_workers, *self._rank_and_world_size())

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


@dataclass(eq=False)
class TrainingBatches(Sampler[list[Draw]]):
    """Endless batches for training, one per step: a new image order in each epoch, whose last batch may be smaller.

    Lightning sees the whole run as one epoch. A resumed run skips the batches of the steps already done. Of
    ``world_size`` processes, rank r takes every ``world_size``-th draw of an epoch, starting at r. The epoch is padded
    with its first draws, ``world_size`` − 1 at most, so that all ranks have equally many.
    """

    n_images: int
    seed: int
    batch_size: int
    batches_done: int = 0
    rank: int = 0
    world_size: int = 1

    @property
    def batches_per_epoch(self) -> int:
        """Batches per process in which all processes together see every image once."""
        return math.ceil(math.ceil(self.n_images / self.world_size) / self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, n_skipped = divmod(self.batches_done, self.batches_per_epoch)
        while True:
            draws = epoch_draws(self.n_images, self.seed, epoch)
            while len(draws) % self.world_size:
                draws.append(draws[len(draws) % self.n_images])
            own = draws[self.rank :: self.world_size]
            batches = [own[start : start + self.batch_size] for start in range(0, len(own), self.batch_size)]
            yield from batches[n_skipped:]
            epoch, n_skipped = epoch + 1, 0


def epoch_draws(n_images: int, seed: int, epoch: int) -> list[Draw]:
    """Each image once; ``seed`` and ``epoch`` determine the order and the augmentation seeds."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(n_images, generator=generator).tolist()
    seeds = torch.randint(2**31, (n_images,), generator=generator).tolist()
    return list(map(Draw, order, seeds))


def shard(n_images: int, rank: int, world_size: int) -> range:
    """The images of one process: each image is in exactly one shard, sizes differ by at most 1.

    Lightning's distributed sampler would count some images twice. Raises ConfigError if there are fewer images than
    processes.
    """
    if 0 < n_images < world_size:
        raise ConfigError(f"devices: {world_size} processes cannot share {n_images} images; use {n_images}")
    return range(rank, n_images, world_size)


def evaluation_loader(
    views: EvaluationViews,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader:
    """Load evaluation views in dataset order; each image is loaded in exactly one process."""
    sampler = shard(len(views), rank, world_size)
    return DataLoader(views, batch_size, sampler=sampler, collate_fn=collate_fn, **_loader_options(num_workers))


def _loader_options(num_workers: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "worker_init_fn": load_for_parent,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        # Drawing worker seeds from torch's global generator would change what a resumed run draws.
        "generator": torch.Generator().manual_seed(0),
    }


def batches_by_shape(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Collate views into one batch per image shape, in order of first appearance; their indices stay numbers."""
    by_shape: dict[torch.Size, list[dict[str, Any]]] = {}
    for sample in samples:
        by_shape.setdefault(sample["img"].shape, []).append(sample)
    return [
        default_collate(group) | {"index": [int(sample["index"]) for sample in group]} for group in by_shape.values()
    ]
