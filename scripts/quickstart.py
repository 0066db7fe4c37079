"""Train and score EAGLE on mosaics within minutes on a laptop's CPU: ``make quickstart`` (see the README)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from make_mosaics import write_mosaics
from omegaconf import DictConfig

from eagle.config.application import parse_command_line, run_command
from eagle.config.schema import EvalConfig, TrainConfig, option
from eagle.config.validation import validated
from eagle.downloads.fetching import DERIVED, fetch_model
from eagle.files import default_folder


@dataclass
class QuickstartConfig:
    """Every key of ``quickstart.py``."""

    output_dir: str = option(
        default_folder("outputs/quickstart"), "Output folder of metrics, pictures and both runs", path=True
    )
    data_dir: str = option(default_folder("datasets"), "Folder that receives the mosaics", path=True)
    pretrained_weights: str | None = option(
        None, "DINOv2-S/14 backbone weights, a .pth or .safetensors file; none = fetched into models/", path=True
    )
    max_steps: int = option(200, "Optimiser steps of each of the two runs", minimum=1)
    n_train: int = option(160, "Number of training scenes", minimum=1)
    n_val: int = option(40, "Number of validation scenes", minimum=1)
    seed: int = option(0, "Seed of scenes and training", minimum=0)


def quickstart(config: DictConfig) -> None:
    """Write the mosaics, fetch the backbone, train EAGLE and its ablation, and score both and k-means."""
    from eagle.checkpoint_evaluation import compare
    from eagle.training.resume import LAST_NAME

    output_dir = Path(config.output_dir)
    mosaics = Path(config.data_dir) / f"mosaics_{config.n_train}_{config.n_val}_{config.seed}"
    write_mosaics(mosaics, config.n_train, config.n_val, size=256, seed=config.seed)
    weights = config.pretrained_weights or fetch_model(DERIVED, default_folder("models"))
    eagle = _train(config, mosaics, weights, "eagle")
    ablation = _train(config, mosaics, weights, "without_object_loss", momentum_limit=0.0)
    checkpoints = {"EAGLE": eagle / LAST_NAME, "EAGLE without object loss (λ = 0)": ablation / LAST_NAME}
    print(compare(checkpoints, output_dir, validated(EvalConfig, {"num_workers": 2, "refine": "both"})))
    print(f"\npictures and metrics: {output_dir}")


def _train(config: DictConfig, mosaics: Path, weights: str | Path, name: str, **overrides: Any) -> Path:
    """Train one run, or resume it if it is unfinished; return its folder."""
    from eagle.training.resume import LAST
    from eagle.training.run import train

    values = {
        "pytorch_data_dir": mosaics.parent,
        "dir_dataset_name": mosaics.name,
        "pretrained_weights": weights,
        "max_steps": config.max_steps,
        "seed": config.seed,
        "output_root": config.output_dir,
        "experiment_name": name,
        "ckpt_path": LAST,
        **overrides,
    }
    arguments = [f"--{key}={value}" for key, value in values.items()]
    return train(parse_command_line(TrainConfig, arguments, "train_config_quickstart"))


if __name__ == "__main__":
    run_command(QuickstartConfig, quickstart)
