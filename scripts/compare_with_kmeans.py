"""Score trained checkpoints and k-means on the keys they learned from, as in the README's tables."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import EvalConfig, option
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import ConfigError
from eagle.files import default_folder


@dataclass
class CompareConfig(EvalConfig):
    """The keys of an evaluation and an output folder."""

    output_dir: str = option(default_folder("outputs/comparison"), "Folder of metrics.json and pictures", path=True)


def compare_with_kmeans(cfg: DictConfig) -> None:
    """Score checkpoints of one dataset and k-means on the first checkpoint's keys, with and without CRF."""
    if not cfg.model_paths:
        raise ConfigError("model_paths: name at least one checkpoint")
    for path in cfg.model_paths:
        require_checkpoint(Path(path), "model_paths")
    from pytorch_lightning.utilities import rank_zero_only

    from eagle.checkpoint_evaluation import compare

    rank_zero_only(print)(compare({path: Path(path) for path in cfg.model_paths}, Path(cfg.output_dir), cfg))


if __name__ == "__main__":
    run_command(CompareConfig, compare_with_kmeans)
