"""A run whose loss is no longer finite ends, and the batch that did it is kept for replay."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from eagle.console import shell_command
from eagle.errors import TrainingError
from eagle.files import written_atomically

GRADIENT = "gradient norm"
REPLAY_SCRIPT = Path(__file__).parents[4] / "scripts" / "replay_batch.py"

# Steps whose values may still be on their way from a GPU, so that the host need not wait for it.
STEPS_UNDER_WAY = 1


@dataclass(frozen=True)
class TrainingStep:
    """A batch, and all that its losses depend on, before the optimiser's step.

    Attributes:
        number: batches done before it.
        batch: as ``LitUnsupervisedSegmenter.losses`` takes it.
        weights: copies of the trained parameters.
        random_state: torch's generators by device type.
    """

    number: int
    batch: Mapping[str, Tensor]
    weights: dict[str, Tensor]
    random_state: dict[str, Tensor]

    @staticmethod
    def of(module: pl.LightningModule, batch: Mapping[str, Tensor]) -> "TrainingStep":
        """The step that ``module`` is about to make."""
        weights = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
        random_state = {"cpu": torch.get_rng_state()}
        if module.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(module.device)
        return TrainingStep(module.global_step, batch, weights, random_state)


class HostCopy:
    """A tensor's values on the host, fetched without waiting for the device."""

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
        """Whether ``wait`` would return at once."""
        return self._event is None or self._event.query()

    def wait(self) -> list[float]:
        """The values."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


class NonFiniteStop(pl.Callback):
    """Ends training at the first non-finite loss term or gradient and writes the batch to the run folder.

    On the CPU the step itself is told; on a GPU one step later, or before a validation or checkpoint, so that the host
    never waits for the device. Under float16, whose scaler skips overflowing gradients, only the terms are watched.

    Args:
        run_dir: the run's folder; rank zero's counts.

    Raises:
        TrainingError: names the first non-finite term, the file and the command that replays it.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._step: TrainingStep | None = None
        self._gradient_norm: Tensor | None = None
        self._under_way: deque[tuple[TrainingStep, list[str], HostCopy]] = deque()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Agree on the folder."""
        self._run_dir = Path(trainer.strategy.broadcast(str(self._run_dir)))

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Keep what the step starts from."""
        self._step = TrainingStep.of(pl_module, batch)

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
    ) -> None:
        """Keep the norm of all gradients."""
        if trainer.precision != "16-mixed":
            self._gradient_norm = gradient_norm(pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Send the step's values to the host, and look at those that arrived."""
        values = dict(outputs["terms"])
        if self._gradient_norm is not None:
            values[GRADIENT] = self._gradient_norm
        stacked = torch.stack([value.float() for value in values.values()])
        if self._step is not None:
            self._under_way.append((self._step, list(values), HostCopy(stacked)))
        self._look(trainer, STEPS_UNDER_WAY)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Do not validate non-finite weights."""
        self._look(trainer, 0)

    def on_save_checkpoint(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],  # noqa: ARG002
    ) -> None:
        """Do not write non-finite weights over good ones."""
        self._look(trainer, 0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """The last step counts too."""
        self._look(trainer, 0)

    def _look(self, trainer: pl.Trainer, n_under_way: int) -> None:
        while self._under_way and (len(self._under_way) > n_under_way or self._under_way[0][2].arrived()):
            step, names, copy = self._under_way.popleft()
            terms = dict(zip(names, copy.wait(), strict=True))
            bad = [name for name, value in terms.items() if not math.isfinite(value)]
            if bad:
                self._under_way.clear()
                self._stop(trainer, step, terms, bad[0])

    def _stop(self, trainer: pl.Trainer, step: TrainingStep, terms: dict[str, float], first_bad: str) -> None:
        suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = (self._run_dir / f"nan_batch{suffix}.pt").resolve()
        module = trainer.lightning_module
        content = {
            "state_dict": module.state_dict() | step.weights,
            "hyper_parameters": dict(module.hparams),
            "terms": terms,
            "step": step.number,
            "batch": dict(step.batch),
            "random_state": step.random_state,
            "precision": str(trainer.precision),
            "world_size": trainer.world_size,
        }
        with written_atomically(path) as temporary:
            torch.save(content, temporary)
        raise TrainingError(
            f"{first_bad} became {terms[first_bad]} in batch {step.number} of the run; replay that batch with: "
            f"{shell_command(REPLAY_SCRIPT, f'file={path}')}"
        )


def gradient_norm(module: torch.nn.Module) -> Tensor:
    """L2 norm of all gradients together, a scalar on their device."""
    return torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
