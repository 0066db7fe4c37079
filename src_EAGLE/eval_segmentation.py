"""Evaluate checkpoints: ``python eval_segmentation.py CHECKPOINT … [key=value …]``."""

from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import EvalConfig
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import ConfigError


def eval_segmentation(cfg: DictConfig) -> None:
    """Score both probes of each checkpoint: mIoU and accuracy under both protocols, with and without CRF.

    Several checkpoints, e.g. model_paths=[../outputs/sweep/*/last.ckpt], are also compared by setting: mean ± standard
    deviation over seeds and paired differences. Those that have been scored with the same keys are not scored again.
    """
    paths = [path for named in cfg.model_paths for path in matching(named)]
    if not paths:
        raise ConfigError("model_paths: name at least one checkpoint, e.g. model_paths=[../outputs/RUN/best.ckpt]")
    for path in paths:
        require_checkpoint(path, "model_paths")
    from eagle.checkpoint_evaluation import evaluate_checkpoints

    evaluate_checkpoints(list(dict.fromkeys(paths)), cfg)


def matching(named: str) -> list[Path]:
    """The files that a name with ``*`` stands for, sorted; any other name, or one of a file that exists, as it is."""
    path = Path(named)
    if path.exists() or not any(sign in named for sign in "*?["):
        return [path]
    found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    if not found:
        raise ConfigError(f"model_paths: no file matches {named}")
    return found


def main() -> None:
    """Run the command."""
    run_command(EvalConfig, eval_segmentation, default_config="eval_config", positional="model_paths")


if __name__ == "__main__":
    main()
