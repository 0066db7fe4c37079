"""Lightning data module: the loaders of a training run."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from eagle.data.catalog import open_dataset
from eagle.data.check import check_samples
from eagle.data.sampler import SeededSampler
from eagle.data.views import EvaluationViews, TrainingViews

# Entries of a batch that stay on the CPU.
HOST_ENTRIES = ("index", "changed")


class SegmentationDataModule(pl.LightningDataModule):
    """Training views and evaluation views of the dataset that a configuration names.

    Args:
        cfg: the training configuration.

    Raises:
        ConfigError: the configuration does not name a dataset.
        DataError: files are missing.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.train_set = open_dataset(cfg, "train")
        self.val_set = open_dataset(cfg, "val")

    def check(self) -> None:
        """Decode a part of both splits; raises DataError that names a broken file."""
        check_samples(self.train_set, "training images")
        check_samples(self.val_set, "validation images")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch, but for what the host asks about: reading that back would wait for the device."""
        kept = {name: batch[name] for name in HOST_ENTRIES if name in batch}
        return super().transfer_batch_to_device(batch, device, dataloader_idx) | kept

    def train_dataloader(self) -> DataLoader:
        """Shuffled training views."""
        views = TrainingViews(self.train_set, self.cfg.res, self.cfg.photometric)
        sampler = SeededSampler(len(views), self.cfg.seed)
        return DataLoader(
            views,
            self.cfg.batch_size,
            sampler=sampler,
            num_workers=self.cfg.num_workers,
            persistent_workers=self.cfg.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader:
        """Validation views in order."""
        return evaluation_loader(
            EvaluationViews(self.val_set, self.cfg.val_res), self.cfg.batch_size, self.cfg.num_workers
        )


def evaluation_loader(
    views: EvaluationViews, batch_size: int, num_workers: int, collate_fn: Callable[[list[Any]], Any] | None = None
) -> DataLoader:
    """Batches of evaluation views in the dataset's order."""
    pinned = torch.cuda.is_available()
    return DataLoader(views, batch_size, num_workers=num_workers, pin_memory=pinned, collate_fn=collate_fn)


def batches_by_shape(samples: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """A batch of views of several shapes as one batch for each shape, in order of first appearance."""
    by_shape: dict[torch.Size, list[dict[str, Tensor]]] = {}
    for sample in samples:
        by_shape.setdefault(sample["img"].shape, []).append(sample)
    return [default_collate(group) for group in by_shape.values()]
