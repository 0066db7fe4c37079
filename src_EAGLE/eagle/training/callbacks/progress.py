"""Progress bar: steps done of the whole run, losses and scores."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor

from eagle.segmenter import LABELLED_MONITOR

# Shown in this order; a narrow terminal cuts off the end.
SHOWN_TERMS = {
    "loss": ("loss/total",),
    "pos": ("loss/pos_inter",),
    "neg": ("loss/neg_inter",),
    "nce": ("loss/local_pos_loss", "loss/local_pos_aug_loss"),
    "eig": ("loss/cluster_eigen_loss",),
    "λ": ("cd/update_params",),
}
SHOWN_SCORES = {"mIoU": LABELLED_MONITOR, "acc": "test/cluster/Accuracy"}
# Fits into 120 columns with all values.
BAR_FORMAT = "{n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining} {rate_noinv_fmt}{postfix}"


class RunProgressBar(TQDMProgressBar):
    """One bar from step 0 to ``max_steps``; that of a resumed run starts at its first step.

    Shows the total loss, the cluster probe's scores in the last validation, the correspondence losses of positive and
    negative pairs, the mean of the two object-centric terms (nce), the EiCue codebook's loss (eig) and λ once it is
    above 0. Values are fetched from the device every ``refresh_rate`` steps, all at once.
    """

    def __init__(self, refresh_rate: int) -> None:
        super().__init__(refresh_rate)
        self._terms: dict[str, float] = {}
        self._scores: dict[str, float] = {}

    @property
    def total_train_batches(self) -> int:
        """Length of the run in steps."""
        return self.trainer.max_steps

    def init_train_tqdm(self) -> Tqdm:
        """Create the bar in a format with more room for values than Lightning's."""
        bar = super().init_train_tqdm()
        bar.bar_format, bar.unit = BAR_FORMAT, ""
        return bar

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start the bar at the steps already done."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(self.train_description)
        self.train_progress_bar.initial = self.train_progress_bar.n = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Show this step and its losses."""
        if self._should_update(trainer.global_step, self.total_train_batches):
            self._terms = shown_terms(outputs["terms"])
            self._show(trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Keep the bar open, unlike Lightning: an epoch is not the end of the run."""
        self._show(trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Close the validation bar and show the scores."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()
        logged = trainer.callback_metrics
        self._scores = {short: float(logged[name]) for short, name in SHOWN_SCORES.items() if name in logged}
        self._show(trainer.global_step)

    def _show(self, n_steps: int) -> None:
        bar = self.train_progress_bar
        if not bar.disable:
            bar.n = n_steps
            bar.set_postfix_str(postfix(self._terms, self._scores))


def shown_terms(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Fetch the shown values from the device in one copy, by short name; λ is omitted while it is 0."""
    values = torch.stack([torch.stack([terms[name] for name in names]).mean() for names in SHOWN_TERMS.values()])
    shown = dict(zip(SHOWN_TERMS, values.tolist(), strict=True))
    return {name: value for name, value in shown.items() if name != "λ" or value > 0}


def postfix(terms: Mapping[str, float], scores: Mapping[str, float]) -> str:
    """Format the text after the bar: total loss, scores in percent, then the other terms."""
    texts = {name: f"{value:.2g}" if name == "λ" else _short(value) for name, value in terms.items()}
    total = {name: texts.pop(name) for name in ["loss"] if name in texts}
    percents = {name: f"{value:.1f}" for name, value in scores.items()}
    return " ".join(f"{name} {value}" for name, value in (total | percents | texts).items())


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
