"""Where a run's numbers go: always a CSV file; Weights & Biases and TensorBoard by key, never waiting for a login."""

import netrc
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

WANDB_HOST = "api.wandb.ai"


def make_loggers(cfg: DictConfig, run_dir: Path) -> list[Logger]:
    """The loggers of a run; ``metrics.csv`` lies in the run folder itself.

    Args:
        cfg: the validated configuration; wandb and tensorboard say which to add.
        run_dir: the run's folder.
    """
    loggers: list[Logger] = [CSVLogger(run_dir.parent, run_dir.name, version="", flush_logs_every_n_steps=1)]
    if cfg.tensorboard:
        loggers.append(TensorBoardLogger(run_dir, name="", version="tensorboard"))
    if cfg.wandb:
        loggers.append(
            WandbLogger(name=run_dir.name, save_dir=run_dir, project="EAGLE", offline=not logged_in_to_wandb())
        )
    for logger in loggers[1:]:
        logger.log_hyperparams(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
    return loggers


def logged_in_to_wandb() -> bool:
    """Whether an API key is at hand, so that an online run would not ask for one."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(os.environ.get("WANDB_HOST", WANDB_HOST)) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
