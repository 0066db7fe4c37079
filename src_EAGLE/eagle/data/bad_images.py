"""What ``on_bad_image=skip`` does: leave bad images out of a dataset, and remember those that training replaced."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image

from eagle.data.check import Inspection, inspect_dataset
from eagle.data.dataset import SegmentationDataset, read_sample
from eagle.errors import DataError
from eagle.files import write_text_atomically

FILE_NAME = "bad_images.txt"

logger = logging.getLogger(__name__)


class ReadableImages(SegmentationDataset):
    """A dataset without the images that could not be read.

    Args:
        dataset: all images.
        inspection: of every one of them.

    Raises:
        DataError: none could be read.
    """

    def __init__(self, dataset: SegmentationDataset, inspection: Inspection) -> None:
        if not inspection.samples:
            inspection.require_good()
        self._dataset = dataset
        self._indices = list(inspection.samples)
        self.classes = dataset.classes
        self.has_labels = dataset.has_labels
        self.skipped = tuple(inspection.bad.values())

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        """The image's name in the whole dataset."""
        return self._dataset.name(self._indices[index])

    def image_path(self, index: int) -> Path | None:
        """The image's file."""
        return self._dataset.image_path(self._indices[index])

    def image(self, index: int) -> Image.Image:
        """The RGB image."""
        return self._dataset.image(self._indices[index])

    def label(self, index: int) -> np.ndarray:
        """Class ids."""
        return self._dataset.label(self._indices[index])


def readable_part(dataset: SegmentationDataset, on_bad_image: str, description: str) -> SegmentationDataset:
    """The dataset itself for ``error``; for ``skip`` what is left of it after every image was read once."""
    if on_bad_image == "error":
        return dataset
    part = ReadableImages(dataset, inspect_dataset(dataset, description))
    for line in part.skipped:
        logger.warning("left out: %s", line)
    return part


class ReplacedImages(pl.Callback):
    """Counts the bad images that training replaced by other draws, over all devices and resumed runs.

    At the end of the run their number is logged, and ``bad_images.txt`` of the run folder has a line for each.

    Args:
        dataset: the training images.
        run_dir: the run's folder.
        skipped: lines about images that validation leaves out.
    """

    def __init__(self, dataset: SegmentationDataset, run_dir: Path, skipped: tuple[str, ...]) -> None:
        self._dataset = dataset
        self._path = run_dir / FILE_NAME
        self._skipped = skipped
        self._bad: set[int] = set()

    def state_dict(self) -> dict[str, Any]:
        """The numbers of the bad images so far."""
        return {"bad": sorted(self._bad)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint was."""
        self._bad |= set(state_dict["bad"])

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Mapping[str, torch.Tensor],
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Note the images of a batch that stand in for others."""
        drawn, used = batch["drawn"].tolist(), batch["index"].tolist()
        self._bad |= {number for number, other in zip(drawn, used, strict=True) if number != other}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather the devices' numbers; the first process writes the file."""
        seen = torch.zeros(len(self._dataset), device=pl_module.device)
        seen[list(self._bad)] = 1
        bad = trainer.strategy.reduce(seen, reduce_op="sum").nonzero().flatten().tolist()
        lines = [*(self._reason(index) for index in bad), *self._skipped]
        if not trainer.is_global_zero or not lines:
            return
        # Names of files may hold bytes that are no text.
        text = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace").decode()
        write_text_atomically(self._path, text)
        logger.warning(
            "%d bad training images replaced by others, %d bad validation images left out: %s",
            len(bad),
            len(self._skipped),
            self._path,
        )

    def _reason(self, index: int) -> str:
        try:
            read_sample(self._dataset, index)
        except DataError as error:
            return str(error)
        return f"{self._dataset.image_path(index)}: could not be read when it was drawn; it can be now"
