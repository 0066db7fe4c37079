"""Loggers of a run: always a CSV file; optionally Weights & Biases and TensorBoard, which also get the figures."""

import csv
import logging
import os
import secrets
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from requests.utils import get_netrc_auth

from eagle.config.validation import plain
from eagle.files import write_csv_atomically, write_text_atomically

WANDB_ID_NAME = "wandb_id.txt"
# Columns of metrics.csv that are named otherwise than by the release.
CSV_NAMES = {"cd/update_params": "λ"}

logger = logging.getLogger(__name__)


class RunCSVLogger(CSVLogger):
    """Writes ``metrics.csv``, whose column ``step`` counts the steps done, as the progress bar does.

    A resumed run keeps the rows of its earlier steps, which Lightning would delete.

    Args:
        run_dir: folder of ``metrics.csv``.
        steps_done: later rows are dropped, because the resumed run logs them again.
    """

    def __init__(self, run_dir: Path, steps_done: int) -> None:
        super().__init__(run_dir.parent, run_dir.name, version="", flush_logs_every_n_steps=1)
        self._metrics_file = run_dir / "metrics.csv"
        self._steps_done = steps_done

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Lightning's writer, which appends to the kept rows."""
        if self._experiment is not None:
            return self._experiment
        rows = self._kept_rows()
        writer = super().experiment
        if rows:
            writer.metrics_keys = list(rows[0])
            write_csv_atomically(self._metrics_file, writer.metrics_keys, [list(row.values()) for row in rows])
        return writer

    def _kept_rows(self) -> list[dict[str, str]]:
        if not self._steps_done or not self._metrics_file.is_file():
            return []
        with self._metrics_file.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            return [row for row in rows if (row["step"] or "").isdigit() and int(row["step"]) <= self._steps_done]

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Write a row; ``step`` is the index of the step, from 0, as for the other loggers."""
        named = {CSV_NAMES.get(name, name): value for name, value in metrics.items()}
        super().log_metrics(named, None if step is None else step + 1)


def make_loggers(cfg: DictConfig, run_dir: Path, steps_done: int = 0) -> list[Logger]:
    """Create the loggers of a run.

    Args:
        cfg: a validated TrainConfig; its keys wandb and tensorboard add loggers.
        run_dir: the run's folder; contains ``metrics.csv``.
        steps_done: steps that a resumed run has already done.
    """
    loggers: list[Logger] = [RunCSVLogger(run_dir, steps_done)]
    if cfg.tensorboard:
        loggers.append(TensorBoardLogger(run_dir, name="", version="tensorboard", purge_step=steps_done or None))
    if cfg.wandb:
        server = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
        # Without a login wandb would ask for one, and a job would wait.
        online = any(map(os.environ.get, ("WANDB_MODE", "WANDB_API_KEY"))) or get_netrc_auth(server) is not None
        if not online:
            rank_zero_only(logger.warning)(
                "wandb: logging offline, since nobody is logged in to %s; upload later with `wandb sync`", server
            )
        loggers.append(
            WandbLogger(
                name=run_dir.name,
                id=_wandb_id(run_dir, resumed=steps_done > 0),
                resume="allow",
                save_dir=run_dir,
                project=cfg.project_name,
                entity=cfg.entity,
                offline=not online,
            )
        )
    for added in loggers[1:]:
        added.log_hyperparams(plain(cfg))
    return loggers


def _wandb_id(run_dir: Path, resumed: bool) -> str:
    """Return the stored id of a resumed run, so that its curves continue, or store a new random id."""
    path = run_dir / WANDB_ID_NAME
    if resumed and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    run_id = secrets.token_hex(4)
    rank_zero_only(write_text_atomically)(path, f"{run_id}\n")
    return run_id
