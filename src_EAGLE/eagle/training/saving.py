"""Save a run: ``best.ckpt``, ``last.ckpt`` with all random states, and on signals; no file is ever half-written."""

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from eagle.distributed import all_gather_objects
from eagle.errors import StoppedRunError
from eagle.files import written_atomically
from eagle.processes import REQUEUE_SIGNAL
from eagle.training.resume import RANDOM_STATES, requeue_job


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

    Args:
        path: the checkpoint to write.
        monitor: name of the logged score to compare.
        mode: "max" or "min".
    """

    def __init__(self, path: Path, monitor: str, mode: str) -> None:
        super().__init__(path.parent, path.stem, monitor=monitor, mode=mode, enable_version_counter=False)
        self._path = path

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score if its checkpoint exists; otherwise the next validation counts as the best."""
        if self._path.is_file() and state_dict["best_model_score"] is not None:
            here = str(self._path.resolve())
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": here,
                "kth_best_model_path": here,
                "best_k_models": {here: state_dict["best_model_score"]},
            }
        super().load_state_dict(state_dict)


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
    ignored.
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
        if len(self._loaded) == trainer.world_size:
            state = self._loaded[trainer.global_rank]
            torch.set_rng_state(state["torch"].cpu())
            if "cuda" in state and pl_module.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda"].cpu(), pl_module.device)
