"""Commands about training runs: train, evaluate checkpoints, draw curves."""

from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import MOST_SEED, PRECISIONS, REQUIRED, BadImageConfig, EvalConfig, TrainConfig, option
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import ConfigError
from eagle.files import default_folder


def train_segmentation(cfg: DictConfig) -> None:
    """Train EAGLE without labels; if the validation images have labels, score its probes during training."""
    from eagle.data.datasets.catalog import open_dataset  # imports scipy, which --help does not need

    open_dataset(cfg, "val")  # names missing files before torch is imported, which takes seconds
    from eagle.training.run import train

    train(cfg)


train_segmentation_main = partial(run_command, TrainConfig, train_segmentation, default_config="train_config_cocostuff")


def eval_segmentation(cfg: DictConfig) -> None:
    """Score both probes of each checkpoint: mIoU and accuracy under both protocols, with and without CRF.

    Several checkpoints, e.g. model_paths=[../outputs/sweep/*/last.ckpt], are also compared by setting: mean ± standard
    deviation over seeds and paired differences. Those that have been scored with the same keys are not scored again.
    """
    # A name without a match stands for itself. Path.glob would refuse absolute ones.
    paths = [Path(path) for named in cfg.model_paths for path in sorted(glob(named)) or [named]]  # noqa: PTH207
    if not paths:
        raise ConfigError("model_paths: name at least one checkpoint, e.g. model_paths=[../outputs/RUN/best.ckpt]")
    for path in paths:
        require_checkpoint(path, "model_paths")
    from eagle.checkpoint_evaluation import evaluate_checkpoints

    evaluate_checkpoints(list(dict.fromkeys(paths)), cfg)


eval_segmentation_main = partial(
    run_command, EvalConfig, eval_segmentation, default_config="eval_config", positional="model_paths"
)


@dataclass
class FitConfig(BadImageConfig):
    """Keys of ``fit_clusters.py``."""

    checkpoint: str = option(REQUIRED, "Trained segmenter: a .ckpt (released or ours) or a .safetensors with its .yml")
    pytorch_data_dir: str | None = option(
        None,
        "Folder that holds all datasets; none = the checkpoint's, or the default folder if that does not exist",
        path=True,
    )
    seed: int = option(
        0, "Seed of the sampled images and of the k-means that finds regions", minimum=0, maximum=MOST_SEED
    )
    batch_size: int = option(16, "Images per batch", minimum=1)
    num_workers: int = option(4, "Data loader processes", minimum=0)
    accelerator: str = option("auto", "Lightning accelerator: auto, cpu, gpu, mps …")
    precision: str = option("32-true", "Lightning precision of backbone and head", choices=PRECISIONS)


def fit_clusters(cfg: DictConfig) -> None:
    """Fit a tree of clusters to a trained segmenter's codes, without labels, and write it with the segmenter.

    The result, NAME_tree beside the checkpoint, is a checkpoint for every command. Its tree can be cut at any number of
    clusters (n_clusters) without another fit.
    """
    checkpoint = Path(cfg.checkpoint)
    require_checkpoint(checkpoint, "checkpoint")
    from eagle.cluster_fit import fit_checkpoint

    print(fit_checkpoint(checkpoint, cfg))


fit_clusters_main = partial(run_command, FitConfig, fit_clusters, positional="checkpoint")


SEVERAL_RUNS_DIR = default_folder("outputs/curves")
FILE_NAME = "curves.png"


@dataclass
class PlotConfig:
    """Keys of ``plot_run.py``."""

    runs: list[str] = option([], "Folders of training runs, finished or running")
    output_dir: str | None = option(
        None, f"Folder for {FILE_NAME}; none = the run's folder, or {SEVERAL_RUNS_DIR} for several runs", path=True
    )


def plot_run(cfg: DictConfig) -> None:
    """Draw losses, λ and scores of one or several runs over optimiser steps, from their metrics.csv."""
    if not cfg.runs:
        raise ConfigError("runs: name at least one run folder")
    from eagle.figures.confusion import write_figure
    from eagle.figures.curves import curves_figure, read_runs

    runs = read_runs([Path(run) for run in cfg.runs])
    default = cfg.runs[0] if len(runs) == 1 else SEVERAL_RUNS_DIR
    path = Path(cfg.output_dir or default) / FILE_NAME
    write_figure(path, curves_figure(runs))
    print(path)


plot_run_main = partial(run_command, PlotConfig, plot_run, positional="runs")
