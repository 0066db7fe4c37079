"""Run a training from configuration to checkpoints."""

import json
import logging
import math
import platform
import sys
import warnings
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from eagle.checkpoints import model_card
from eagle.cluster_fit import fit_checkpoint
from eagle.config.schema import TrainConfig
from eagle.config.validation import absolute_paths, check_resolution, with_overrides
from eagle.console import code_version, shell_command
from eagle.data.datamodule import SegmentationDataModule
from eagle.data.datasets.catalog import dataset_label
from eagle.distributed import chosen_precision, machine_arguments, named_devices, set_float32_precision
from eagle.errors import ConfigError, DataError
from eagle.files import nameless_errors_name, only_writer, write_text_atomically
from eagle.segmenter import LABEL_FREE_MONITOR, LABELLED_MONITOR, LitUnsupervisedSegmenter
from eagle.training.caches import open_caches, refuse_full_memory
from eagle.training.callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    LossLog,
    RandomStates,
    RunProgressBar,
    rank_zeros_folder,
)
from eagle.training.loggers import make_loggers
from eagle.training.resume import LAST_NAME, check_same_content, find_resumption, resume_command, run_folder
from eagle.training.validation_pictures import FOLDER_NAME, ValidationPictures

BEST_NAME, TREE_NAME = "best.ckpt", "last_tree.ckpt"

# Images per step of the released runs, on two GPUs and on one.
RELEASED_BATCHES = {"cocostuff27": 64, "cityscapes": 32}

_SCRIPTS = Path(__file__).resolve().parents[2]

logger = logging.getLogger(__name__)


def train(cfg: DictConfig) -> Path:
    """Train EAGLE. Configuration, data and machine are checked before the first step.

    Args:
        cfg: a validated TrainConfig.

    Returns:
        The run folder with ``config.yml``, ``run.json``, ``metrics.csv``, ``pictures/``, ``last.ckpt`` and
        ``best.ckpt`` (highest cluster mIoU, or lowest label-free loss if the validation images have no labels).

    Raises:
        ConfigError, CheckpointError, DataError, TrainingError, WeightsError: see their one-line messages.
        EagleError: another process trains in the folder.
    """
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    set_float32_precision(cfg.matmul_precision)
    cfg = with_overrides(cfg, precision=chosen_precision(cfg))
    run_dir = run_folder(cfg)
    resumed_from, steps_done = find_resumption(cfg, run_dir)
    data = SegmentationDataModule(cfg, steps_done)
    segmenter = LitUnsupervisedSegmenter(len(data.train_set.classes), cfg)
    patch_size = segmenter.net.model.patch_size
    for name in ("res", "val_res"):
        check_resolution(name, cfg[name], patch_size)
    n_patches = (cfg.res // patch_size) ** 2
    if cfg.eigen_cluster > n_patches:
        raise ConfigError(
            f"eigen_cluster: {cfg.eigen_cluster} eigenvectors need as many patches, but res={cfg.res} has {n_patches} "
            f"of {patch_size}×{patch_size} pixels; raise res or lower eigen_cluster"
        )
    data.check()
    if resumed_from:
        check_same_content(resumed_from, cfg, segmenter.net.model, data)
    if cfg.compile:
        segmenter.compile_network()
    if cfg.cache_features != "off":
        segmenter.key_caches = open_caches(cfg, segmenter.net.model, data.train_set, data.val_set)
    trainer = _trainer(cfg, run_dir, data)
    if cfg.cache_features == "ram":
        sizes = len(data.train_set), len(data.val_set), cfg.max_steps - steps_done, trainer.num_devices
        refuse_full_memory(cfg, segmenter.net.model, *sizes)
    with only_writer(run_dir) if trainer.is_global_zero else nullcontext():
        return _fit(cfg, run_dir, trainer, segmenter, data, resumed_from)


def _fit(
    cfg: DictConfig,
    run_dir: Path,
    trainer: pl.Trainer,
    segmenter: LitUnsupervisedSegmenter,
    data: SegmentationDataModule,
    resumed_from: Path | None,
) -> Path:
    """Describe the run in its folder, train, and return the folder; no other process may write to it."""
    if trainer.is_global_zero:
        places = absolute_paths(TrainConfig, cfg, Path.cwd()) | {"output_root": str(run_dir.parent.resolve())}
        saved = with_overrides(cfg, **places, experiment_name=run_dir.name, ckpt_path=None)
        write_text_atomically(run_dir / "config.yml", OmegaConf.to_yaml(saved))
        record_run(run_dir, cfg.seed, str(resumed_from) if resumed_from else None)
        data_line = f"{dataset_label(cfg)}: {len(data.train_set)} training images"
        write_run_readme(run_dir, data_line, cfg, data.val_set.has_labels)
        _warn_about_batch(cfg, trainer.world_size)
    with warnings.catch_warnings():
        # Lightning warns of what is intended: the folder holds config.yml, num_workers is the user's choice, the frozen
        # backbone is in eval mode, and logged metrics are already reduced over devices.
        warnings.filterwarnings(
            "ignore",
            ".*exists and is not empty.*|.*does not have many workers.*|.*module.s. in eval mode.*"
            "|.*recommended to use .*sync_dist=True.*",
        )
        with nameless_errors_name(run_dir):
            try:
                trainer.fit(segmenter, data, ckpt_path=resumed_from, weights_only=True)
            finally:
                if cfg.wandb:
                    import wandb

                    wandb.finish()  # the next run of this process would continue it
    run_dir = rank_zeros_folder(trainer)
    if trainer.is_global_zero:
        chosen, best = run_dir / BEST_NAME, cast(BestCheckpoint, trainer.checkpoint_callback)
        if is_finished := data.batches_done >= cfg.max_steps:
            logger.info("max_steps: all %d steps are done; raise it to go on", cfg.max_steps)
        if cfg.fit_clusters == "tree" and trainer.global_step >= cfg.max_steps:
            try:
                # The defaults of fit_clusters.py, which thus gives the same tree.
                options = OmegaConf.merge(cfg, {"precision": "32-true", "batch_size": 16})
                fitted = is_finished and _is_newer(run_dir / TREE_NAME, run_dir / LAST_NAME)
                chosen = run_dir / TREE_NAME if fitted else fit_checkpoint(run_dir / LAST_NAME, options)
            except DataError as error:  # too few images for a tree end no run that has been trained
                logger.warning("fit_clusters: no tree: %s", error)
                write_run_readme(run_dir, data_line, with_overrides(cfg, fit_clusters="off"), data.val_set.has_labels)
        if best.best_model_score is not None:
            logger.info("best %s: %.2f", best.monitor, best.best_model_score)
        verb, command = ("score", evaluation_command) if data.val_set.has_labels else ("use", segmentation_command)
        logger.info("%s the run: %s\nrun folder: %s", verb, command(chosen), run_dir)
    return run_dir


def _is_newer(file: Path, other: Path) -> bool:
    return file.is_file() and file.stat().st_mtime_ns > other.stat().st_mtime_ns


def _trainer(cfg: DictConfig, run_dir: Path, data: SegmentationDataModule) -> pl.Trainer:
    # The score that selects best.ckpt, and whether its maximum or its minimum is best.
    name, mode = (LABELLED_MONITOR, "max") if data.val_set.has_labels else (LABEL_FREE_MONITOR, "min")
    best = BestCheckpoint(run_dir, Path(BEST_NAME).stem, enable_version_counter=False, monitor=name, mode=mode)
    # A run shorter than val_freq is validated at its end, so that it has a best checkpoint.
    val_interval = min(cfg.val_freq, cfg.max_steps)
    last = LastCheckpoint(run_dir / LAST_NAME, cfg.checkpoint_freq, val_interval, resume_command(run_dir))
    pictures = []
    if cfg.n_images:
        kept_interval = val_interval * math.ceil(cfg.max_steps // val_interval / cfg.pictures_kept)
        pictures = [ValidationPictures(run_dir / FOLDER_NAME, data.val_set, cfg.n_images, kept_interval)]
    callbacks = [LossLog(cfg.scalar_log_freq), RandomStates(), *pictures, RunProgressBar(cfg.scalar_log_freq)]
    loggers = make_loggers(cfg, run_dir, data.batches_done)
    with named_devices(cfg):
        return pl.Trainer(
            **machine_arguments(cfg),
            use_distributed_sampler=False,  # eagle.data.datamodule distributes the samples
            deterministic=cfg.deterministic,
            default_root_dir=run_dir,
            plugins=[AtomicCheckpointIO()],
            max_steps=cfg.max_steps,
            max_epochs=-1,
            val_check_interval=val_interval,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=0,  # LossLog logs the losses of steps; Lightning logs those of validations
            logger=loggers,
            callbacks=[*callbacks, best, last],
            enable_model_summary=False,
        )


def _warn_about_batch(cfg: DictConfig, world_size: int) -> None:
    """Warn if batches have no negative pairs, or if a step has more or fewer images than the released run."""
    images = cfg.batch_size * world_size
    if images == 1 or (cfg.batch_size == 1 and not cfg.gather_batch):
        logger.warning("batch_size: a batch of one image has no negative pairs, so neg_inter_weight has no effect")
    released = RELEASED_BATCHES.get(cfg.dataset_name, images)
    if images != released:
        logger.warning(
            "batch_size: %d images per step (%d × %d), the released %s run had %d",
            images, world_size, cfg.batch_size, cfg.dataset_name, released,
        )  # fmt: skip


def record_run(run_dir: Path, seed: int, resumed_from: str | None) -> None:
    """Append command line, code version, packages, devices, seed and time to ``run.json``; resuming adds an entry.

    Args:
        run_dir: the run's folder.
        seed: the run's seed.
        resumed_from: the checkpoint that a resumed run starts from.
    """
    path = run_dir / "run.json"
    earlier: list[Any] = []
    with suppress(OSError, ValueError):  # missing or damaged
        earlier = json.loads(path.read_text(encoding="utf-8"))
    entry = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "resumed_from": resumed_from,
        "seed": seed,
        "code": code_version(),
        "python": platform.python_version(),
        "packages": {package.name: package.version for package in distributions()},
        "machine": platform.node(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or [platform.machine()],
    }
    write_text_atomically(path, json.dumps([*earlier, entry], indent=2) + "\n")


def write_run_readme(run_dir: Path, data: str, cfg: Any, has_labels: bool = True) -> None:
    """Write ``README.md``: a model card, and the commands that score, use and resume the run.

    Args:
        run_dir: the run's folder.
        data: what the model is trained on.
        cfg: a validated TrainConfig.
        has_labels: whether the run can be scored.
    """
    checkpoint = run_dir.resolve() / (TREE_NAME if cfg.fit_clusters == "tree" else BEST_NAME)
    scoring = [evaluation_command(checkpoint)] if has_labels else []
    commands = [*scoring, segmentation_command(checkpoint), resume_command(run_dir)]
    card = model_card(cfg, data, "**Scores**: in `metrics.csv` and, after an evaluation, beside the checkpoint")
    lines = [f"# Training run {checkpoint.parent.name}", "", card, "", "```bash", *commands, "```", ""]
    write_text_atomically(run_dir / "README.md", "\n".join(lines))


def evaluation_command(checkpoint: Path) -> str:
    """Return the shell command that scores a checkpoint."""
    return shell_command(_SCRIPTS / "eval_segmentation.py", str(checkpoint.resolve()))


def segmentation_command(checkpoint: Path) -> str:
    """Return the shell command that segments images with a checkpoint."""
    # As two words, the path is taken as it is: = and [ have a meaning in Hydra's key=value.
    return shell_command(_SCRIPTS / "segment_images.py", "IMAGES", "--checkpoint", str(checkpoint.resolve()))
