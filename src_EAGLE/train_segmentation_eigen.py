"""Train EAGLE: ``python train_segmentation_eigen.py [--config-name NAME] [key=value …]``."""

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import TrainConfig
from eagle.data.datasets.catalog import open_dataset


def train_segmentation(cfg: DictConfig) -> None:
    """Train EAGLE without labels; if the validation images have labels, score its probes during training."""
    open_dataset(cfg, "val")  # names missing files before torch is imported, which takes seconds
    from eagle.training.run import train

    train(cfg)


def main() -> None:
    """Run the command."""
    run_command(TrainConfig, train_segmentation, default_config="train_config_cocostuff")


if __name__ == "__main__":
    main()
