"""Watch a run: log its losses, show them in the progress bar, and stop at the first that is not finite."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import Tensor

from eagle.errors import TrainingError
from eagle.files import written_atomically
from eagle.segmenter import LABELLED_MONITOR

GRADIENT = "gradient norm"

# Shown in this order; a narrow terminal cuts off the end.
SHOWN = {
    "loss": "loss/total",
    "mIoU": LABELLED_MONITOR,
    "acc": "test/cluster/Accuracy",
    "pos": "loss/pos_inter",
    "neg": "loss/neg_inter",
    "nce": "loss/local_pos_loss",
    "eig": "loss/cluster_eigen_loss",
    "λ": "cd/update_params",
}


class LossLog(pl.Callback):
    """Logs the losses of every ``interval``-th step under the number of that step, from 0.

    Lightning would log them after ``last.ckpt`` is saved, so that a kill in between loses them, and under a count of
    its own, which is wrong after some resumptions.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:  # noqa: ARG002
        """Log the terms of this step; they are fetched from the device in one copy."""
        if trainer.global_step % self._interval == 0:
            terms: Mapping[str, Tensor] = outputs["terms"]
            values = torch.stack([*terms.values()]).tolist()
            for logger in trainer.loggers:
                logger.log_metrics(dict(zip(terms, values, strict=True)), trainer.global_step - 1)


class RunProgressBar(TQDMProgressBar):
    """Lightning's bar from step 0 to ``max_steps``, drawn every ``interval`` steps; a resumed run's starts at its step.

    It shows the total loss, the cluster probe's scores in the last validation, the correspondence losses of positive
    and negative pairs, the object-centric loss from x to its augmented view (nce), the EiCue codebook's loss (eig), λ.
    """

    # Fits into 120 columns with all values.
    BAR_FORMAT = "{n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining} {rate_noinv_fmt}{postfix}"

    def __init__(self, interval: int) -> None:
        super().__init__(refresh_rate=interval)

    @property
    def total_train_batches(self) -> int:
        """Length of the run in steps."""
        return self.trainer.max_steps

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Count the steps that a resumed run has done, but not in its speed."""
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.initial = self.train_progress_bar.n = trainer.global_step
        self.train_progress_bar.refresh()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:  # noqa: ARG002
        """The shown values by short name."""
        logged = trainer.callback_metrics
        return {short: f"{float(logged[name]):.2f}" for short, name in SHOWN.items() if name in logged}


class NonFiniteStop(pl.Callback):
    """Ends training at the first non-finite loss term or gradient and writes that step's batch to ``nan_batch.pt``.

    The next step raises, or a validation or checkpoint before it, so that the host never waits for a GPU. With 16-mixed
    precision only the loss terms are checked, because the gradient scaler skips overflowing gradients.

    Args:
        run_dir: the run's folder; all processes use rank zero's.

    Raises:
        TrainingError: names the first non-finite term and the saved file.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._gradient_norm: Tensor | None = None
        # Number and batch of the last step, names and values on the host, and when the values have arrived.
        self._unchecked: tuple[int, Mapping[str, Tensor], list[str], Tensor, torch.cuda.Event | None] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Agree on the folder."""
        self._run_dir = Path(trainer.strategy.broadcast(str(self._run_dir)))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Keep the L2 norm of all gradients."""
        if trainer.precision != "16-mixed":
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(
        self, trainer: pl.Trainer, _: pl.LightningModule, outputs: Any, batch: Mapping[str, Tensor], *__: Any
    ) -> None:
        """Start copying the step's values to the host, and check those of the step before."""
        self._check(trainer)
        values = dict(outputs["terms"])
        if self._gradient_norm is not None:
            values[GRADIENT] = self._gradient_norm
        stacked = torch.stack([value.float() for value in values.values()])
        copy = stacked.to("cpu", non_blocking=stacked.is_cuda)
        copied = torch.cuda.current_stream(stacked.device).record_event() if stacked.is_cuda else None
        self._unchecked = trainer.global_step - 1, batch, list(values), copy, copied

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Never validate non-finite weights."""
        self._check(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, *_: Any) -> None:
        """Never overwrite a good checkpoint with non-finite weights."""
        self._check(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Check the last step too."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        done, self._unchecked = self._unchecked, None
        if done is None:
            return
        step, batch, names, values, copied = done
        if copied is not None:
            copied.synchronize()
        terms = dict(zip(names, values.tolist(), strict=True))
        bad = [name for name, value in terms.items() if not math.isfinite(value)]
        if bad:
            suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
            path = (self._run_dir / f"nan_batch{suffix}.pt").resolve()
            with written_atomically(path) as temporary:
                torch.save({"step": step, "terms": terms, "batch": dict(batch)}, temporary)
            raise TrainingError(
                f"{bad[0]} became {terms[bad[0]]} in step {step} of the run; look at that step's images, saved "
                f"in {path}, or lower the learning rates"
            )
