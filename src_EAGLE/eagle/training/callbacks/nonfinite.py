"""Stop a run at the first non-finite loss term or gradient, and save the batch of that step."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from eagle.errors import TrainingError
from eagle.files import written_atomically

GRADIENT = "gradient norm"

# On a GPU, a step's values are read one step later, so that the host never waits for the device.
MAX_PENDING = 1


class HostCopy:
    """Copies a tensor to the host without waiting for the device."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))
        else:
            self._values = values.cpu()

    def arrived(self) -> bool:
        """Whether the copy is complete."""
        return self._event is None or self._event.query()

    def wait(self) -> list[float]:
        """Wait for the copy and return the values."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


@dataclass(frozen=True)
class PendingStep:
    """A finished step whose values have not been checked yet.

    Attributes:
        step: number of the step, from 0.
        batch: as ``LitUnsupervisedSegmenter.losses`` takes it.
        names: loss terms, then the gradient norm if it is checked.
        values: their values, in the order of ``names``.
    """

    step: int
    batch: Mapping[str, Tensor]
    names: list[str]
    values: HostCopy


class NonFiniteStop(pl.Callback):
    """Ends training at the first non-finite loss term or gradient and writes that step's batch to ``nan_batch.pt``.

    On the CPU the faulty step itself raises. On a GPU the next step does, or a validation or checkpoint before it.
    With 16-mixed precision only the loss terms are checked, because the gradient scaler skips overflowing gradients.

    Args:
        run_dir: the run's folder; all processes use rank zero's.

    Raises:
        TrainingError: names the first non-finite term and the saved file.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._gradient_norm: Tensor | None = None
        self._pending: deque[PendingStep] = deque()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Agree on the folder."""
        self._run_dir = Path(trainer.strategy.broadcast(str(self._run_dir)))

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
    ) -> None:
        """Keep the L2 norm of all gradients."""
        if trainer.precision != "16-mixed":
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Start copying the step's values to the host, and check those that have arrived."""
        values = dict(outputs["terms"])
        if self._gradient_norm is not None:
            values[GRADIENT] = self._gradient_norm
        stacked = torch.stack([value.float() for value in values.values()])
        self._pending.append(PendingStep(trainer.global_step - 1, batch, list(values), HostCopy(stacked)))
        self._check(trainer, MAX_PENDING)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Never validate non-finite weights."""
        self._check(trainer, 0)

    def on_save_checkpoint(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],  # noqa: ARG002
    ) -> None:
        """Never overwrite a good checkpoint with non-finite weights."""
        self._check(trainer, 0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Check the last step too."""
        self._check(trainer, 0)

    def _check(self, trainer: pl.Trainer, max_pending: int) -> None:
        while self._pending and (len(self._pending) > max_pending or self._pending[0].values.arrived()):
            done = self._pending.popleft()
            terms = dict(zip(done.names, done.values.wait(), strict=True))
            bad = [name for name, value in terms.items() if not math.isfinite(value)]
            if bad:
                self._pending.clear()
                self._stop(trainer, done, terms, bad[0])

    def _stop(self, trainer: pl.Trainer, done: PendingStep, terms: dict[str, float], first_bad: str) -> None:
        suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = (self._run_dir / f"nan_batch{suffix}.pt").resolve()
        with written_atomically(path) as temporary:
            torch.save({"step": done.step, "terms": terms, "batch": dict(done.batch)}, temporary)
        raise TrainingError(
            f"{first_bad} became {terms[first_bad]} in step {done.step} of the run; look at that step's images, saved "
            f"in {path}, or lower the learning rates"
        )
