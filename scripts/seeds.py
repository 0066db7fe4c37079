"""Train with several seeds: ``python scripts/seeds.py seeds=[0,1,2] --config-name NAME experiment_name=NAME …``."""

import sys
from dataclasses import dataclass

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.hydra_application import run_hydra
from eagle.config.hydra_options import HydraOptions, split_hydra_options
from eagle.config.parsing import split_arguments
from eagle.config.schema import TrainConfig, key
from eagle.data.datasets.catalog import open_dataset
from eagle.errors import ConfigError, DataError
from eagle.reports.sweep import BEST, LAST, TrainingJobs

DEFAULT_CONFIG = "train_config_cocostuff"


@dataclass
class SeedsConfig(TrainConfig):
    """The keys of a training run, the seeds and the CRF."""

    seeds: list[int] = key([0, 1, 2], "Seeds of the runs; replaces the key seed")
    run_crf: bool = key(True, "Also score after the dense CRF, as eval_segmentation.py does")


def seeds(cfg: DictConfig) -> None:
    """Train with several seeds and report mean ± standard deviation of the last and the best checkpoint's scores."""
    if not cfg.seeds or len(set(cfg.seeds)) < len(cfg.seeds):
        raise ConfigError(f"seeds: give at least one seed and none twice, not {list(cfg.seeds)}")
    if cfg.experiment_name is None:
        raise ConfigError("experiment_name: set it to the name of a folder for all runs")
    if not open_dataset(cfg, "val").has_labels:
        raise DataError("the validation images have no labels to score against; seeds are compared by their scores")
    options, arguments = split_hydra_options(sys.argv[1:])
    name, overrides = split_arguments(arguments)
    words = [word for word in overrides if word.partition("=")[0] not in ("seeds", "run_crf", "seed")]
    words += [f"seed=choice({','.join(map(str, cfg.seeds))})", "--config-name", name or DEFAULT_CONFIG]
    sweep = HydraOptions(multirun=True, config_dir=options.config_dir if options else None)
    run_hydra(TrainConfig, seeds, sweep, words, jobs=TrainingJobs((LAST, BEST), cfg.run_crf))


if __name__ == "__main__":
    run_command(SeedsConfig, seeds, default_config=DEFAULT_CONFIG)
