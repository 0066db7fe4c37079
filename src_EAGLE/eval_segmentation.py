"""Evaluate checkpoints: ``python eval_segmentation.py model_paths=[CHECKPOINT, …] [key=value …]``."""

from pathlib import Path

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import EvalConfig
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import ConfigError


def eval_segmentation(cfg: DictConfig) -> None:
    """Score both probes of each checkpoint: mIoU and accuracy under both protocols, with and without CRF."""
    if not cfg.model_paths:
        raise ConfigError("model_paths: name at least one checkpoint, e.g. model_paths=[../outputs/RUN/best.ckpt]")
    paths = [Path(path) for path in cfg.model_paths]
    for path in paths:
        require_checkpoint(path, "model_paths")
    from eagle.reports.checkpoint_evaluation import evaluate_checkpoints

    evaluate_checkpoints(paths, cfg)


def main() -> None:
    """Run the command."""
    run_command(EvalConfig, eval_segmentation, default_config="eval_config")


if __name__ == "__main__":
    main()
