"""Callbacks of a run: show and log its losses, stop at the first that is not finite, and save the run.

``best.ckpt`` and ``last.ckpt`` are written after a step, never in the middle of one, and never half.
"""

import io
import logging
import math
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from eagle.distributed import all_gather_objects
from eagle.errors import StoppedRunError, TrainingError
from eagle.files import written_atomically
from eagle.processes import REQUEUE_SIGNAL
from eagle.segmenter import LABELLED_MONITOR
from eagle.training.resume import RANDOM_STATES, requeue_job

logger = logging.getLogger(__name__)

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


class RunProgressBar(TQDMProgressBar):
    """Lightning's bar from step 0 to ``max_steps``, drawn every ``interval`` steps; a resumed run's starts at its step.

    It shows the total loss, the cluster probe's scores in the last validation, the correspondence losses of positive
    and negative pairs, the object-centric loss from x to its augmented view (nce), the EiCue codebook's loss (eig), λ.
    """

    # Fits into 120 columns with all values.
    BAR_FORMAT = "{n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining} {rate_noinv_fmt}{postfix}"

    def __init__(self, interval: int) -> None:
        super().__init__(refresh_rate=interval)

    def init_train_tqdm(self) -> Tqdm:
        """Create the bar with the steps that a resumed run has done, for which Lightning starts no epoch."""
        bar = super().init_train_tqdm()
        bar.total, bar.initial, bar.n = self.trainer.max_steps, self.trainer.global_step, self.trainer.global_step
        bar.refresh()
        return bar

    def on_train_epoch_start(self, *_: Any) -> None:
        """Keep the bar as it is: the run is one epoch."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:  # noqa: ARG002
        """The shown values by short name."""
        logged = trainer.callback_metrics
        return {short: f"{float(logged[name]):.2f}" for short, name in SHOWN.items() if name in logged}


class LossLog(pl.Callback):
    """Logs the losses of every ``interval``-th step under the number of that step, from 0; stops at a non-finite one.

    They are read one step later, or before a validation or checkpoint, so that the host never waits for a GPU. The
    batch of the step in which a term or gradient is not finite is written to ``nan_batch.pt``. With 16-mixed precision
    only the terms are checked, because the gradient scaler skips overflowing gradients.

    Lightning would log after ``last.ckpt`` is saved, so that a kill in between loses rows, and under a count of its
    own, which is wrong after some resumptions.

    Raises:
        TrainingError: names the first non-finite term and the saved file.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._gradient_norm: Tensor | None = None
        # Number and batch of the last step, names and values on the host, and when the values have arrived.
        self._unread: tuple[int, Mapping[str, Tensor], list[str], Tensor, torch.cuda.Event | None] | None = None

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Keep the L2 norm of all gradients."""
        if trainer.precision != "16-mixed":
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(
        self, trainer: pl.Trainer, _: pl.LightningModule, outputs: Any, batch: Mapping[str, Tensor], *__: Any
    ) -> None:
        """Read the values of the step before, and start copying this step's to the host."""
        self._read(trainer)
        values = dict(outputs["terms"])
        if self._gradient_norm is not None:
            values[GRADIENT] = self._gradient_norm
        stacked = torch.stack([value.float() for value in values.values()])
        copy = stacked.to("cpu", non_blocking=stacked.is_cuda)
        copied = torch.cuda.current_stream(stacked.device).record_event() if stacked.is_cuda else None
        self._unread = trainer.global_step - 1, batch, list(values), copy, copied

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Log before the validation's scores, and never validate non-finite weights."""
        self._read(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, *_: Any) -> None:
        """Log before the run is saved, as it is after its last step, and never save non-finite weights."""
        self._read(trainer)

    def _read(self, trainer: pl.Trainer) -> None:
        done, self._unread = self._unread, None
        if done is None:
            return
        step, batch, names, values, copied = done
        if copied is not None:
            copied.synchronize()
        terms = dict(zip(names, values.tolist(), strict=True))
        if (step + 1) % self._interval == 0:
            for logger in trainer.loggers:
                logger.log_metrics({name: value for name, value in terms.items() if name != GRADIENT}, step)
        bad = [name for name, value in terms.items() if not math.isfinite(value)]
        if bad:
            suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
            path = (rank_zeros_folder(trainer) / f"nan_batch{suffix}.pt").resolve()
            with written_atomically(path) as temporary:
                torch.save({"step": step, "terms": terms, "batch": dict(batch)}, temporary)
            raise TrainingError(
                f"{bad[0]} became {terms[bad[0]]} in step {step} of the run; look at that step's images, saved "
                f"in {path}, or lower the learning rates"
            )


def rank_zeros_folder(trainer: pl.Trainer) -> Path:
    """The run's folder; named by rank zero's clock, which its checkpoint callback has broadcast to all processes."""
    return Path(cast(Any, trainer.checkpoint_callback).dirpath)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint, flushes to disk and renames.

    Lightning's own writes to the system's temporary folder. If that is another disk, it then copies over the checkpoint
    in place, and a kill in between destroys the old one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write a checkpoint atomically."""
        # Serialise in memory first: torch's file writer hides the cause when the disk is full.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with written_atomically(Path(path)) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


class BestCheckpoint(ModelCheckpoint):
    """ModelCheckpoint that keeps its best score after the run folder moved.

    Lightning's own would forget it and save the first validation of the resumed run as the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score if its checkpoint exists; otherwise the next validation counts as the best."""
        here = f"{self.dirpath}/{self.filename}.ckpt"
        if Path(here).is_file() and state_dict["best_model_score"] is not None:
            place = {
                "dirpath": self.dirpath,
                "best_model_path": here,
                "kth_best_model_path": here,
                "best_k_models": {here: state_dict["best_model_score"]},
            }
            super().load_state_dict(state_dict | place)


class LastCheckpoint(Checkpoint):
    """Saves the run after a step, or after its validation if it has one, so that the run resumes exactly.

    It saves every ``save_interval`` steps and after the last one. On SIGTERM, Ctrl-C or SLURM's warning signal the
    current step and its validation finish. Then the run is saved and, unless that was the last step, stopped; after the
    warning signal SLURM is asked to requeue the job. A second signal ends the process at once. Lightning's own handlers
    would save in the middle of a step.

    Pass it to the Trainer after the checkpoint callbacks whose state it has to save.

    Args:
        path: the checkpoint to write.
        save_interval: steps between saves.
        val_interval: steps between validations.
        resume_command: command that resumes the run, for the message.

    Raises:
        StoppedRunError: its exit status is 128 plus the signal's number.
    """

    def __init__(self, path: Path, save_interval: int, val_interval: int, resume_command: str) -> None:
        self._path = path
        self._save_interval = save_interval
        self._val_interval = val_interval
        self._resume_command = resume_command
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Replace Lightning's signal handlers."""
        for number in (signal.SIGINT, signal.SIGTERM, *([REQUEUE_SIGNAL] if SLURMEnvironment.detect() else [])):
            self._previous[number] = signal.signal(number, self._receive)
        if trainer.received_sigterm:  # by Lightning's handler, while the run was prepared
            self._receive(signal.SIGTERM, None)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save after a step without validation."""
        if trainer.global_step % self._val_interval:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Save after a step with validation."""
        self._save_if_due(trainer)

    def on_train_end(self, *_: Any) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def on_exception(self, *_: Any) -> None:
        """Restore the previous signal handlers."""
        self.on_train_end()

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        stopped = self._received is not None
        if trainer.world_size > 1:
            # A signal may reach the processes in different steps, or only one of them.
            stopped = trainer.strategy.reduce_boolean_decision(stopped, all=False)
        is_last = trainer.global_step == trainer.max_steps
        if stopped or is_last or trainer.global_step % self._save_interval == 0:
            trainer.save_checkpoint(self._path, weights_only=False)
        if stopped and not is_last:
            self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        received = [number for number in all_gather_objects([self._received]) if number is not None]
        how = f"resume with: {self._resume_command}"
        if REQUEUE_SIGNAL in received:
            if trainer.is_global_zero:
                how = f"{requeue_job()}; resume by hand: {self._resume_command}"
            # Wait until rank zero has asked SLURM: the first process to exit ends the others.
            trainer.strategy.barrier()
        number = REQUEUE_SIGNAL if REQUEUE_SIGNAL in received else received[0]
        raise StoppedRunError(number, trainer.global_step, self._path, how)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = number
        print(f"\n{signal.Signals(number).name}: saving the run after this step", file=sys.stderr)


class RandomStates(pl.Callback):
    """Saves torch's random states in every process and restores them right before the first resumed step.

    So a resumed run draws the same numbers as an uninterrupted one. States saved with another number of processes are
    ignored, with a warning.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []

    def on_save_checkpoint(self, _: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the states of all processes."""
        state = {"torch": torch.get_rng_state()}
        if pl_module.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(pl_module.device)
        checkpoint[RANDOM_STATES] = all_gather_objects([state])

    def on_load_checkpoint(self, _: pl.Trainer, __: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Hold the states until training starts, because its setup draws random numbers too."""
        self._loaded = checkpoint.get(RANDOM_STATES, [])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore this process's random states."""
        if self._loaded and len(self._loaded) != trainer.world_size:
            rank_zero_only(logger.warning)(
                "devices: resumed with %d in place of %d; batch_size is for each, so steps have more or fewer images",
                trainer.world_size,
                len(self._loaded),
            )
        if len(self._loaded) == trainer.world_size:
            state = self._loaded[trainer.global_rank]
            torch.set_rng_state(state["torch"].cpu())
            if "cuda" in state and pl_module.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda"].cpu(), pl_module.device)
