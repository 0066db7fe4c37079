"""Set the cluster probe's centres by k-means of codes (``cluster_probe_fit=kmeans``)."""

import logging
import time
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from eagle.data.datasets.base import SegmentationDataset
from eagle.evaluation.kmeans import kmeans_of_codes
from eagle.models.probes import ClusterLookup
from eagle.segmenter import LitUnsupervisedSegmenter

logger = logging.getLogger(__name__)


class ClusterProbeFit(pl.Callback):
    """Replaces the centres after ``step_schedulers`` steps, and again at the end of the run.

    A fit depends on the seed and the head's weights only. The checkpoint of a finished run also holds the centres
    before the last fit, from which a longer run goes on.

    Args:
        cfg: the training configuration.
        dataset: the training images.
    """

    def __init__(self, cfg: Any, dataset: SegmentationDataset) -> None:
        self._cfg = cfg
        self._dataset = dataset
        self._trained: Tensor | None = None  # the centres before the fit at the end; None before that fit

    def state_dict(self) -> dict[str, Any]:
        """The centres before the fit at the end, for the checkpoint."""
        return {"trained": self._trained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read them back."""
        self._trained = state_dict["trained"]

    @torch.no_grad()
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Go on from the trained centres of a finished run that is made longer."""
        if self._trained is not None:
            _probe(pl_module).clusters.copy_(self._trained)
            self._trained = None

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Replace the centres after ``step_schedulers`` steps; Adam's averages of the old centres are dropped."""
        if trainer.global_step == self._cfg.step_schedulers:
            self._fit(trainer, pl_module)
            for optimizer in trainer.optimizers:
                optimizer.state.pop(_probe(pl_module).clusters, None)

    def at_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Replace the centres of a finished run, unless its checkpoint already holds the fit.

        Returns:
            Whether they were replaced.
        """
        if self._trained is not None:
            return False
        trained = _probe(pl_module).clusters.detach().cpu().clone()
        device = pl_module.device  # on a GPU, Lightning has moved the module to the CPU
        pl_module.to(trainer.strategy.root_device)
        self._fit(trainer, pl_module)
        pl_module.to(device)
        self._trained = trained
        return True

    def _fit(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        start = time.perf_counter()
        segmenter = cast(LitUnsupervisedSegmenter, pl_module)
        probe = segmenter.cluster_probe
        with trainer.precision_plugin.forward_context():
            centres = kmeans_of_codes(
                segmenter.clean_codes,
                self._dataset,
                len(probe.clusters),
                self._cfg,
                segmenter.device,
                trainer.global_rank,
                trainer.world_size,
            )
        probe.point_at(centres)
        seconds = time.perf_counter() - start
        rank_zero_only(logger.info)(
            "cluster probe: k-means of codes after %d steps, %.1f s", trainer.global_step, seconds
        )


def _probe(pl_module: pl.LightningModule) -> ClusterLookup:
    return cast(LitUnsupervisedSegmenter, pl_module).cluster_probe
