"""Find the neighbours of all training images once, before the first step (``positives: knn``)."""

import logging
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from eagle.data.loading.datamodule import SegmentationDataModule
from eagle.distributed import all_reduce_sum, computed_by_rank_zero, from_rank_zero
from eagle.files import written_atomically
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training.neighbours import nearest_neighbours

FILE_NAME = "neighbours.safetensors"

logger = logging.getLogger(__name__)


class PositiveNeighbours(pl.Callback):
    """Gives the data module the neighbours of all training images, and keeps them in the run folder.

    A resumed run reads them from there, or finds them again if the file is missing. All devices share the search for
    the mean keys, and the key cache, if there is one, keeps the keys.

    Args:
        run_dir: the run's folder.
        data: the training images.
    """

    def __init__(self, run_dir: Path, data: SegmentationDataModule) -> None:
        self._path = run_dir / FILE_NAME
        self._data = data

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read or find the neighbours; the segmenter is on its device by now, and the loaders do not exist yet."""
        assert isinstance(pl_module, LitUnsupervisedSegmenter)
        resumed = self._data.batches_done > 0
        neighbours = computed_by_rank_zero(lambda: self._stored() if resumed else None)
        if neighbours is None:
            rank_zero_only(logger.info)("positives: finding the neighbours of %d images", len(self._data.train_set))
            neighbours = from_rank_zero(self._found(trainer, pl_module)).cpu()
            if trainer.is_global_zero:
                with written_atomically(self._path) as temporary:
                    save_file({"neighbours": neighbours}, temporary)
        self._data.neighbours = neighbours

    def _stored(self) -> Tensor | None:
        try:
            neighbours = load_file(self._path)["neighbours"]
        except (OSError, SafetensorError, KeyError):
            return None
        return neighbours if len(neighbours) == len(self._data.train_set) else None

    def _found(self, trainer: pl.Trainer, segmenter: LitUnsupervisedSegmenter) -> Tensor:
        features = torch.zeros(len(self._data.train_set), segmenter.net.model.n_feats, device=segmenter.device)
        usable = torch.zeros(len(features), device=segmenter.device)
        # The precision of training, because the key cache keeps these keys for it.
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in self._data.clean_dataloader():
                keys = segmenter.clean_keys(batch["img"].to(segmenter.device), batch["index"])
                features[batch["drawn"]] = keys.float().mean(dim=(2, 3))
                usable[batch["drawn"]] = (batch["index"] == batch["drawn"]).to(usable)
        # Each row is zero on all devices but one.
        return nearest_neighbours(all_reduce_sum(features), all_reduce_sum(usable) > 0)
