"""Lightning data module: the loaders of a training run."""

import logging
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from eagle.data.check import Inspection, inspect_dataset
from eagle.data.check_tables import summary_table
from eagle.data.datasets.catalog import open_dataset
from eagle.data.loading.bad_images import ReadableImages
from eagle.data.loading.sampler import TrainingBatches
from eagle.data.loading.sharding import Shard
from eagle.data.loading.views import EvaluationViews, TrainingViews
from eagle.distributed import computed_by_rank_zero, started_by_rank_zero
from eagle.errors import DataError
from eagle.processes import follow_parent

# Images of a split that are decoded before a run: seconds, and a broken export is bad all over.
_QUICK_CHECK = 256

logger = logging.getLogger(__name__)

# Entries of a batch that stay on the CPU.
HOST_ENTRIES = ("index", "drawn", "changed")


class SegmentationDataModule(pl.LightningDataModule):
    """Training views and evaluation views of the dataset that a configuration names.

    Args:
        cfg: the training configuration.
        batches_done: of a resumed run.

    Raises:
        ConfigError: the configuration does not name a dataset.
        DataError: files are missing.
    """

    def __init__(self, cfg: Any, batches_done: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.batches_done = batches_done
        self.train_set = open_dataset(cfg, "train")
        self.val_set = open_dataset(cfg, "val")

    def check(self) -> None:
        """Decode a part of both splits and log a table of what they hold; ``on_bad_image=skip`` decodes all of val.

        Rank zero decodes for all processes. One that it started itself learns no more than that nothing was wrong, and
        decodes again where it has to know which images to leave out.

        Raises:
            DataError: a bad image where none may be skipped, no good one, or void validation labels only.
        """
        skip = self.cfg.on_bad_image == "skip"
        if started_by_rank_zero() and not skip:
            return
        found = computed_by_rank_zero(self._inspect)
        if skip:
            self.val_set = ReadableImages(self.val_set, found["val"])

    def _inspect(self) -> dict[str, Inspection]:
        skip = self.cfg.on_bad_image == "skip"
        found = {
            "train": inspect_dataset(self.train_set, "training images", _QUICK_CHECK, self.cfg.res),
            "val": inspect_dataset(self.val_set, "validation images", None if skip else _QUICK_CHECK, self.cfg.val_res),
        }
        rank_zero_only(logger.info)("%s", summary_table(found))
        for inspection in found.values():
            if not skip or not inspection.samples:
                inspection.require_good()
        if self.val_set.has_labels and found["val"].n_void() == len(found["val"].samples):
            raise DataError(
                "every validation label is void: there is nothing to score; mend the labels, or remove their folder to "
                "train without"
            )
        return found

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch, but for what the host asks about: reading that back would wait for the device."""
        kept = {name: batch[name] for name in HOST_ENTRIES if name in batch}
        return super().transfer_batch_to_device(batch, device, dataloader_idx) | kept

    def train_dataloader(self) -> DataLoader:
        """Shuffled training views, without an end."""
        views = TrainingViews(self.train_set, self.cfg.res, self.cfg.photometric, self.cfg.on_bad_image)
        batches = TrainingBatches(
            len(views), self.cfg.seed, self.cfg.batch_size, self.batches_done, *self._rank_and_world_size()
        )
        return DataLoader(
            views,
            batch_sampler=batches,
            generator=_own_generator(),
            num_workers=self.cfg.num_workers,
            worker_init_fn=follow_parent,
            persistent_workers=self.cfg.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader:
        """Validation views in order."""
        return evaluation_loader(
            EvaluationViews(self.val_set, self.cfg.val_res),
            self.cfg.batch_size,
            self.cfg.num_workers,
            *self._rank_and_world_size(),
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def evaluation_loader(
    views: EvaluationViews,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader:
    """Batches of evaluation views in the dataset's order, each image in one process only."""
    sampler = Shard(len(views), rank, world_size)
    pinned = torch.cuda.is_available()
    return DataLoader(
        views,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        worker_init_fn=follow_parent,
        persistent_workers=num_workers > 0,
        pin_memory=pinned,
        collate_fn=collate_fn,
        generator=_own_generator(),
    )


def _own_generator() -> torch.Generator:
    """For a loader's worker seeds: from torch's own generator they would change what a resumed run draws."""
    return torch.Generator().manual_seed(0)


def batches_by_shape(samples: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """A batch of views of several shapes as one batch for each shape, in order of first appearance."""
    by_shape: dict[torch.Size, list[dict[str, Tensor]]] = {}
    for sample in samples:
        by_shape.setdefault(sample["img"].shape, []).append(sample)
    return [default_collate(group) for group in by_shape.values()]
