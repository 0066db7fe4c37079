"""Print the losses of a batch that stopped a run: ``python scripts/replay_batch.py file=RUN/nan_batch.pt``."""

import math
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import REQUIRED, key
from eagle.console import text_table
from eagle.training.replay import replay


@dataclass
class ReplayConfig:
    """Every key of ``replay_batch.py``."""

    file: str = key(REQUIRED, "The nan_batch.pt that a stopped run left in its folder")


def replay_batch(cfg: DictConfig) -> None:
    """Compute a saved batch's losses again, from the weights and random state that the run had then."""
    result = replay(Path(cfg.file))
    rows = [
        [name, f"{result.recorded.get(name, math.nan):.6g}", f"{value:.6g}"] for name, value in result.again.items()
    ]
    print(text_table(["term", "in the run", "replayed"], rows))


if __name__ == "__main__":
    run_command(ReplayConfig, replay_batch)
