"""Save random states in checkpoints, so that a resumed run draws the same numbers as an uninterrupted one."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from eagle.distributed import all_gather_objects

KEY = "random_states"


class RandomStates(pl.Callback):
    """Saves the random states of every process and restores them right before the first resumed step.

    States saved with another number of processes are ignored.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []

    def on_save_checkpoint(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add the states of all processes, as plain containers and tensors.

        Loaded states are saved again as long as no step was done, so resuming a finished run does not change them.
        """
        checkpoint[KEY] = self._loaded or all_gather_objects([random_state(pl_module.device)])

    def on_load_checkpoint(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Hold the states until training starts, because its setup draws random numbers too."""
        self._loaded = checkpoint.get(KEY, [])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore this process's random states."""
        if len(self._loaded) == trainer.world_size:
            set_random_state(self._loaded[trainer.global_rank], pl_module.device)
        self._loaded = []


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of Python's, NumPy's, torch's and the device's generators, without NumPy objects."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  the global generator, which libraries use
    state = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore states returned by ``random_state``."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
