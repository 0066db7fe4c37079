"""Writes ``last.ckpt`` every so many batches, and when a signal ends the run."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from eagle.distributed import all_gather_objects
from eagle.errors import StoppedRunError
from eagle.training.slurm import REQUEUE_SIGNAL, in_slurm, requeue_job


class LastCheckpoint(Checkpoint):
    """Saves a run where it can be resumed exactly: after a batch or, where that one is validated, after its validation.

    SIGTERM, Ctrl-C and under SLURM the signal that warns of a job's end let the batch and its validation end. Then the
    run is saved and, where another batch would follow, stopped; SLURM is asked to start the job again. A second signal
    leaves at once. Lightning's own handlers would save in the middle of a batch.

    Give it to the Trainer behind the checkpoint callbacks whose state it is to save.

    Args:
        path: the checkpoint to write.
        every: batches between writes.
        validated_every: batches between validations.
        resume_command: what resumes the run, for the message.

    Raises:
        StoppedRunError: its exit status is 128 plus the signal's number.
    """

    def __init__(self, path: Path, every: int, validated_every: int, resume_command: str) -> None:
        self._path = path
        self._every = every
        self._validated_every = validated_every
        self._resume_command = resume_command
        self._received: int | None = None
        self._saved_for: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Take the signals over from Lightning."""
        for number in (signal.SIGINT, signal.SIGTERM, *([REQUEUE_SIGNAL] if in_slurm() else [])):
            self._previous[number] = signal.signal(number, self._receive)

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Stop a saved run; not until now are the last batch's losses logged."""
        if self._saved_for is None:
            return
        how = f"go on with: {self._resume_command}"
        if self._saved_for == REQUEUE_SIGNAL:
            if trainer.is_global_zero:
                how = f"{requeue_job()}; by hand: {self._resume_command}"
            # The first process that ends takes the others with it: not before SLURM has been asked.
            trainer.strategy.barrier()
        raise StoppedRunError(self._saved_for, trainer.global_step, self._path, how)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Save after a batch that is not validated."""
        if trainer.global_step % self._validated_every:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Save after a validation."""
        self._save_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Give the signals back."""
        self._give_back()

    def on_exception(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        stopped = self._received is not None
        if trainer.world_size > 1:
            # A signal may reach the processes in different batches, or one of them alone.
            stopped = trainer.strategy.reduce_boolean_decision(stopped, all=False)
        if stopped or trainer.global_step % self._every == 0:
            trainer.save_checkpoint(self._path, weights_only=False)
        if stopped:
            received = [number for number in all_gather_objects([self._received]) if number is not None]
            self._saved_for = REQUEUE_SIGNAL if REQUEUE_SIGNAL in received else received[0]

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = number
        print(f"\n{signal.Signals(number).name}: saving the run after this batch", file=sys.stderr)
