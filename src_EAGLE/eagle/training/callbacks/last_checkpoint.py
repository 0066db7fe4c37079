"""Save ``last.ckpt`` at regular steps, and when a signal stops the run."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from eagle.distributed import all_gather_objects
from eagle.errors import StoppedRunError
from eagle.training.loggers import RunCSVLogger
from eagle.training.slurm import REQUEUE_SIGNAL, in_slurm, requeue_job


class LastCheckpoint(Checkpoint):
    """Saves the run after a step, or after its validation if it has one, so that the run resumes exactly.

    On SIGTERM, Ctrl-C or SLURM's warning signal the current step and its validation finish. Then the run is saved and,
    unless that was the last step, stopped; after the warning signal SLURM is asked to requeue the job. A second signal
    ends the process at once. Lightning's own handlers would save in the middle of a step.

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
        self._saved_for: int | None = None
        # Losses of the saved step: Lightning logs them after this callback, so a kill in between would lose them.
        self._saved_losses: dict[str, float] = {}
        self._saved_step = 0
        self._previous: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The losses of the saved step, for the checkpoint."""
        return {"losses": self._saved_losses, "step": self._saved_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read the losses of the saved step back."""
        self._saved_losses, self._saved_step = dict(state_dict["losses"]), int(state_dict["step"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Log the saved step's losses if the killed run did not come to it, and replace Lightning's signal handlers."""
        csv_logger = trainer.logger
        is_last = self._saved_step == trainer.global_step
        if is_last and self._saved_losses and isinstance(csv_logger, RunCSVLogger):
            csv_logger.log_missing(self._saved_losses, trainer.global_step - 1)
        for number in (signal.SIGINT, signal.SIGTERM, *([REQUEUE_SIGNAL] if in_slurm() else [])):
            self._previous[number] = signal.signal(number, self._receive)

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Stop a run that was saved because of a signal; by now the last step's losses are logged."""
        # Lightning's count of logged steps is one too high after resuming a run that had ended with a validation.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if self._saved_for is None:
            return
        how = f"resume with: {self._resume_command}"
        if self._saved_for == REQUEUE_SIGNAL:
            if trainer.is_global_zero:
                how = f"{requeue_job()}; resume by hand: {self._resume_command}"
            # Wait until rank zero has asked SLURM: the first process to exit ends the others.
            trainer.strategy.barrier()
        raise StoppedRunError(self._saved_for, trainer.global_step, self._path, how)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Save after a step without validation."""
        if trainer.global_step % self._val_interval:
            is_logged = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
            self._save_if_due(trainer, outputs["terms"] if is_logged else {})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Save after a step with validation."""
        self._save_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Restore the previous signal handlers."""
        self._restore_handlers()

    def on_exception(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Restore the previous signal handlers."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _save_if_due(self, trainer: pl.Trainer, losses: Mapping[str, Tensor] | None = None) -> None:
        stopped = self._received is not None
        if trainer.world_size > 1:
            # A signal may reach the processes in different steps, or only one of them.
            stopped = trainer.strategy.reduce_boolean_decision(stopped, all=False)
        if stopped or trainer.global_step % self._save_interval == 0:
            self._saved_losses = {name: float(value) for name, value in (losses or {}).items()}
            self._saved_step = trainer.global_step
            trainer.save_checkpoint(self._path, weights_only=False)
        if stopped:
            received = [number for number in all_gather_objects([self._received]) if number is not None]
            self._saved_for = REQUEUE_SIGNAL if REQUEUE_SIGNAL in received else received[0]

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = number
        print(f"\n{signal.Signals(number).name}: saving the run after this step", file=sys.stderr)
