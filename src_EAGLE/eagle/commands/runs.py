"""Commands about training runs: train, evaluate checkpoints, draw curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from eagle.config.application import keys_of_file, run_command
from eagle.config.schema import MOST_SEED, BadImageConfig, DeviceConfig, EvalConfig, TrainConfig, option
from eagle.config.validation import validated
from eagle.config.words import read_command_line
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import ConfigError
from eagle.files import default_folder


def train_segmentation(cfg: DictConfig) -> None:
    """Train EAGLE without labels; if the validation images have labels, score its probes during training."""
    from eagle.data.datasets.catalog import open_dataset  # imports scipy, which --help does not need

    open_dataset(cfg, "val")  # names missing files before torch is imported, which takes seconds
    from eagle.training.run import train

    train(cfg)


def train(config_name: str = "train_config_directory", **keys: Any) -> Path:
    """Train as ``train_segmentation_eigen.py --config-name`` does, for notebooks.

    Args:
        config_name: name in ``configs/``, or a YAML file.
        keys: values in place of the configuration's, e.g. ``dir_dataset_name="mine", max_steps=400``.

    Returns:
        The run's folder.

    Raises:
        ConfigError: a key is unknown or has a wrong value.
        EagleError: as the command's one-line errors.

    Example:
        >>> import eagle
        >>> eagle.train(dir_dataset_name="mine", max_step=400)
        Traceback (most recent call last):
        ...
        eagle.errors.ConfigError: unknown key 'max_step': did you mean 'max_steps'?
    """
    from eagle.training.run import train as run

    line = read_command_line(TrainConfig, ["--config-name", config_name])
    given = keys_of_file(line, [keys["fidelity"]] if "fidelity" in keys else []) | keys
    given.pop("hydra", None)
    return run(validated(TrainConfig, given))


train_segmentation_main = partial(run_command, TrainConfig, train_segmentation, default_config="train_config_cocostuff")


def eval_segmentation(cfg: DictConfig) -> None:
    """Score both probes of each checkpoint: mIoU and accuracy under both protocols, with and without CRF.

    Several checkpoints, e.g. model_paths=[../outputs/sweep/*/last.ckpt], are also compared by setting: mean ± standard
    deviation over seeds and paired differences. Those that have been scored with the same keys are not scored again.
    """
    paths = checkpoints("model_paths", cfg.model_paths)
    from eagle.checkpoint_evaluation import evaluate_checkpoints

    evaluate_checkpoints(paths, cfg)


def checkpoints(key: str, names: Sequence[str]) -> list[Path]:
    """The checkpoints that a key names, each once; raises before torch is imported if one is missing."""
    if not names:
        raise ConfigError(f"{key}: name at least one checkpoint, e.g. {key}=[../outputs/RUN/best.ckpt]")
    for named in names:
        if named.startswith("["):
            raise ConfigError(f"{key}: quote names with = or commas: \"{key}=['{named.strip('[]')}']\"")
    # A name without a match stands for itself. Path.glob would refuse absolute ones.
    found = [Path(path) for named in names for path in sorted(glob(named)) or [named]]  # noqa: PTH207
    for path in found:
        require_checkpoint(path, key)
    return list(dict.fromkeys(found))


eval_segmentation_main = partial(
    run_command, EvalConfig, eval_segmentation, default_config="eval_config", positional="model_paths"
)


@dataclass
class FitConfig(BadImageConfig, DeviceConfig):
    """Keys of ``fit_clusters.py``."""

    checkpoint: list[str] = option([], "Trained segmenters: .ckpt (released or ours) or .safetensors with their .yml")
    pytorch_data_dir: str | None = option(
        None,
        "Folder that holds all datasets; none = the checkpoint's, or the default folder if that does not exist",
        path=True,
    )
    seed: int | None = option(
        None,
        "Seed of the sampled images and of the k-means that finds regions; none = the training run's",
        minimum=0,
        maximum=MOST_SEED,
    )
    batch_size: int = option(16, "Images per batch", minimum=1)
    num_workers: int = option(4, "Data loader processes", minimum=0)


def fit_clusters(cfg: DictConfig) -> None:
    """Fit a tree of clusters to the codes of each trained segmenter, without labels, and write it with the segmenter.

    The result, NAME_tree beside the checkpoint, is a checkpoint for every command. Its tree can be cut at any number of
    clusters (n_clusters) without another fit.
    """
    paths = checkpoints("checkpoint", cfg.checkpoint)
    from eagle.cluster_fit import fit_checkpoint
    from eagle.models.key_cache import KeyMemory
    from eagle.training.caches import available_memory

    memory = KeyMemory(available_memory() // 2 if len(paths) > 1 else 0)
    for path in paths:
        print(fit_checkpoint(path, cfg, memory), flush=True)


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
    from eagle.figures.curves import curves_figure, read_runs
    from eagle.figures.drawing import write_figure

    runs = read_runs([Path(run) for run in cfg.runs])
    default = cfg.runs[0] if len(runs) == 1 else SEVERAL_RUNS_DIR
    path = Path(cfg.output_dir or default) / FILE_NAME
    write_figure(path, curves_figure(runs))
    print(path)


plot_run_main = partial(run_command, PlotConfig, plot_run, positional="runs")
