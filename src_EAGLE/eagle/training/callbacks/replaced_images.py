"""List the unreadable images that training replaced (``on_bad_image=skip``)."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from eagle.data.datasets.base import SegmentationDataset, read_sample
from eagle.errors import DataError
from eagle.files import write_text_atomically

FILE_NAME = "bad_images.txt"

logger = logging.getLogger(__name__)


class ReplacedImages(pl.Callback):
    """Collects the unreadable images that training replaced, over all devices and resumed runs.

    At the end of the run it logs their number and writes one line per image to ``bad_images.txt`` in the run folder.

    Args:
        dataset: the training images.
        run_dir: the run's folder.
        skipped: one line for each validation image left out.
    """

    def __init__(self, dataset: SegmentationDataset, run_dir: Path, skipped: tuple[str, ...]) -> None:
        self._dataset = dataset
        self._path = run_dir / FILE_NAME
        self._skipped = skipped
        self._bad: set[int] = set()

    def state_dict(self) -> dict[str, Any]:
        """Return the indices of the bad images so far."""
        return {"bad": sorted(self._bad)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the indices from a checkpoint."""
        self._bad |= set(state_dict["bad"])

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Mapping[str, torch.Tensor],
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Collect the drawn images whose place another image took."""
        drawn, used = batch["drawn"].tolist(), batch["index"].tolist()
        self._bad |= {index for index, substitute in zip(drawn, used, strict=True) if index != substitute}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather the indices of all devices; rank zero writes the file."""
        seen = torch.zeros(len(self._dataset), device=pl_module.device)
        seen[list(self._bad)] = 1
        bad = trainer.strategy.reduce(seen, reduce_op="sum").nonzero().flatten().tolist()
        lines = [*(self._reason(index) for index in bad), *self._skipped]
        if not trainer.is_global_zero or not lines:
            return
        # File names may contain bytes that are not valid text.
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
        return f"{self._dataset.image_path(index)}: could not be read during training, but can be read now"
