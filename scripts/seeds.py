"""Train with several seeds: ``python scripts/seeds.py seeds=[0,1,2] --config-name NAME experiment_name=NAME …``."""

import dataclasses
from dataclasses import dataclass

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import BadImageConfig, EvalConfig, MachineConfig, TrainConfig, key
from eagle.config.validation import plain, validated
from eagle.errors import ConfigError


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
    values = plain(cfg)
    training = validated(TrainConfig, {field.name: values[field.name] for field in dataclasses.fields(TrainConfig)})
    where = (*dataclasses.fields(MachineConfig), *dataclasses.fields(BadImageConfig))
    evaluation = validated(EvalConfig, {field.name: values[field.name] for field in where} | {"run_crf": cfg.run_crf})
    from pytorch_lightning.utilities import rank_zero_only

    from eagle.reports.seeds import run_seeds

    rank_zero_only(print)(f"\n{run_seeds(list(cfg.seeds), training, evaluation)}")


if __name__ == "__main__":
    run_command(SeedsConfig, seeds, default_config="train_config_cocostuff")
