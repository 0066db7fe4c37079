"""Train EAGLE: ``python train_segmentation_eigen.py [--config-name NAME] [key=value …]``."""

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import TrainConfig
from eagle.training.run import train


def train_segmentation(cfg: DictConfig) -> None:
    """Train EAGLE without labels; if the validation images have labels, score its probes during training."""
    train(cfg)


if __name__ == "__main__":
    run_command(TrainConfig, train_segmentation, default_config="train_config_cocostuff")
