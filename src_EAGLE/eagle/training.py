"""A training run from configuration to checkpoints."""

import logging
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar

from eagle.config_validation import completed
from eagle.data.bad_images import ReplacedImages
from eagle.data.catalog import dataset_label
from eagle.data.datamodule import SegmentationDataModule
from eagle.errors import ConfigError
from eagle.feature_cache import open_disk_cache
from eagle.files import nameless_errors_name, write_text_atomically
from eagle.loggers import make_loggers
from eagle.machine import machine_arguments
from eagle.nonfinite import NonFiniteStop
from eagle.segmenter import LABEL_FREE_MONITOR, LABELLED_MONITOR, LitUnsupervisedSegmenter

BEST, LAST = "best", "last"

logger = logging.getLogger(__name__)


def train(cfg: DictConfig) -> Path:
    """Train EAGLE; everything that can be known to be wrong is said before the first batch.

    Args:
        cfg: a validated TrainConfig.

    Returns:
        The run folder: ``config.yml``, ``metrics.csv``, ``best.ckpt`` (by cluster mIoU, or by the label-free loss
        where there are no labels) and ``last.ckpt``.

    Raises:
        ConfigError, DataError, TrainingError, WeightsError: see their one-line messages.
    """
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = SegmentationDataModule(cfg)
    run_dir = _new_run_dir(cfg)
    segmenter = LitUnsupervisedSegmenter(len(data.train_set.classes), cfg)
    patch_size = segmenter.net.model.patch_size
    for name in ("res", "val_res"):
        check_resolution(name, cfg[name], patch_size)
    _check_patches(cfg, patch_size)
    data.check()
    if cfg.compile:
        segmenter.compile_network()
    if cfg.cache_features == "disk":
        segmenter.use_key_cache(open_disk_cache(cfg, segmenter.net.model, data.train_set))
    trainer = _trainer(cfg, run_dir, data)
    if trainer.is_global_zero:
        write_text_atomically(run_dir / "config.yml", OmegaConf.to_yaml(cfg))
    _warn_without_negatives(cfg, trainer.world_size)
    with warnings.catch_warnings():
        # All meant: the folder holds config.yml, num_workers is the user's choice, the frozen backbone is in eval mode,
        # and metrics are the same on all devices when they are logged.
        warnings.filterwarnings(
            "ignore",
            ".*exists and is not empty.*|.*does not have many workers.*|.*module.s. in eval mode.*"
            "|.*recommended to use .*sync_dist=True.*",
        )
        with nameless_errors_name(run_dir):
            trainer.fit(segmenter, data)
            trainer.save_checkpoint(run_dir / f"{LAST}.ckpt", weights_only=False)
    run_dir = Path(trainer.strategy.broadcast(str(run_dir)))
    if trainer.is_global_zero:
        logger.info("run folder: %s", run_dir)
    return run_dir


def check_resolution(name: str, res: int, patch_size: int) -> None:
    """Raise ConfigError, with the nearest sizes, where a resolution is not a multiple of the patch size."""
    if res % patch_size:
        below = res // patch_size * patch_size
        nearest = f"{below} or {below + patch_size}" if below else f"{patch_size}"
        raise ConfigError(f"{name}: {res} is not a multiple of the patch size {patch_size}; use {nearest}")


def _trainer(cfg: DictConfig, run_dir: Path, data: SegmentationDataModule) -> pl.Trainer:
    labelled = data.val_set.has_labels
    best = ModelCheckpoint(
        run_dir,
        BEST,
        monitor=LABELLED_MONITOR if labelled else LABEL_FREE_MONITOR,
        mode="max" if labelled else "min",
        enable_version_counter=False,
    )
    last = ModelCheckpoint(run_dir, LAST, every_n_train_steps=cfg.checkpoint_freq, enable_version_counter=False)
    replaced = [ReplacedImages(data.train_set, run_dir, data.val_set.skipped)] if cfg.on_bad_image == "skip" else []
    return pl.Trainer(
        **machine_arguments(cfg),
        max_steps=cfg.max_steps,
        max_epochs=-1,
        val_check_interval=cfg.val_freq,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=cfg.scalar_log_freq,
        logger=make_loggers(cfg, run_dir),
        callbacks=[NonFiniteStop(run_dir), *replaced, best, last, TQDMProgressBar(refresh_rate=cfg.scalar_log_freq)],
        enable_model_summary=False,
    )


def _check_patches(cfg: DictConfig, patch_size: int) -> None:
    n_patches = (cfg.res // patch_size) ** 2
    if cfg.eigen_cluster > n_patches:
        raise ConfigError(
            f"eigen_cluster: {cfg.eigen_cluster} eigenvectors need as many patches, but res={cfg.res} has {n_patches} "
            f"of {patch_size}×{patch_size} pixels; raise res or lower eigen_cluster"
        )


def _warn_without_negatives(cfg: DictConfig, world_size: int) -> None:
    if cfg.batch_size * (world_size if cfg.gather_batch else 1) == 1:
        logger.warning("batch_size: a batch of one image has no negative pairs, so neg_inter_weight steers nothing")


def _new_run_dir(cfg: DictConfig) -> Path:
    """The run's folder; raises ConfigError rather than writing over another run.

    Every process checks: none can write a checkpoint or metrics before all have come as far as training. Where their
    clocks differ, rank zero's name counts, and it alone writes.
    """
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    run_dir = Path(cfg.output_root) / (
        cfg.experiment_name or f"{Path(dataset_label(cfg)).name}_{cfg.model_type}_{time}"
    )
    if (run_dir / f"{LAST}.ckpt").exists() or (run_dir / "metrics.csv").exists():
        raise ConfigError(f"experiment_name: {run_dir} already holds a run; choose another name or remove it")
    return run_dir


def with_overrides(cfg: DictConfig, **overrides: Any) -> DictConfig:
    """A validated copy of a configuration with some keys changed."""
    return completed({**cfg, **overrides})
