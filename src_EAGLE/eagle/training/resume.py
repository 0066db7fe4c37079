"""Find the checkpoint that a run goes on from, and check that it is the same run's."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from eagle.checkpoints.formats import stored_cfg
from eagle.checkpoints.safe_pickles import read_pickle
from eagle.config.validation import plain
from eagle.errors import CheckpointError, ConfigError
from eagle.training.callbacks.random_states import KEY as RANDOM_STATES
from eagle.training.slurm import was_requeued

# The value of ckpt_path that means the run's own newest checkpoint.
LAST = "last"
LAST_NAME, PREVIOUS_NAME = "last.ckpt", "previous.ckpt"

# What only a run that this code wrote can be gone on with has: released checkpoints count seven optimisers' steps.
RUN_STATE = {"global_step", "loops", "optimizer_states", RANDOM_STATES}

# Keys that a resumed run may change: they say where, how fast and with what logging to compute, or how long.
FREE_KEYS = {
    "accelerator", "devices", "num_nodes", "strategy", "precision", "num_workers", "rank_timeout", "max_steps",
    "output_root", "experiment_name", "pytorch_data_dir", "cache_features", "cache_dir", "compile", "deterministic",
    "scalar_log_freq", "val_freq", "val_res", "checkpoint_freq", "wandb", "tensorboard", "n_images", "pictures_kept",
    "ckpt_path", "pretrained_weights", "on_bad_image",
}  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumption:
    """Where a run goes on.

    Attributes:
        path: the checkpoint.
        step: batches done.
    """

    path: Path
    step: int


def find_resumption(cfg: DictConfig, run_dir: Path) -> Resumption | None:
    """The checkpoint that ``ckpt_path`` asks for; None for a run that begins.

    ``last`` takes the newest whole one of ``last.ckpt`` and ``previous.ckpt`` and lets a run without them begin: the
    same command starts a run and goes on with it. A job that SLURM started again does so unasked.

    Args:
        cfg: a validated TrainConfig.
        run_dir: the run's folder.

    Raises:
        CheckpointError: the checkpoint is missing, or none is whole.
        ConfigError: keys that decide the result differ from the checkpoint's, or a run that was not to be gone on with
            is in the folder.
    """
    if cfg.ckpt_path == LAST or (cfg.ckpt_path is None and was_requeued()):
        candidates = [path for name in (LAST_NAME, PREVIOUS_NAME) if (path := run_dir / name).is_file()]
        if not candidates:
            logger.info("%s: no checkpoint to go on from; the run begins", run_dir)
            return None
    elif cfg.ckpt_path is None:
        _refuse_another_run(run_dir)
        return None
    else:
        candidates = [Path(cfg.ckpt_path)]
    path, content = _first_whole(candidates)
    _check_same_run(cfg, content, path)
    return Resumption(path, int(content["global_step"]))


def _refuse_another_run(run_dir: Path) -> None:
    """Raise ConfigError rather than write over another run.

    Every process checks: none can write a checkpoint or metrics before all have come as far as training.
    """
    if any((run_dir / name).exists() for name in (LAST_NAME, PREVIOUS_NAME, "metrics.csv")):
        raise ConfigError(
            f"experiment_name: {run_dir} already holds a run; choose another name, remove it, or go on with it: "
            f"ckpt_path={LAST}"
        )


def _first_whole(candidates: list[Path]) -> tuple[Path, Mapping[str, Any]]:
    """Path and content of the first readable checkpoint; what is wrong with those before it is logged."""
    problems: list[str] = []
    for path in candidates:
        try:
            content = read_pickle(path)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if not content.keys() >= RUN_STATE:
            raise CheckpointError(f"ckpt_path: {path} holds a model but no state of a run of this code to go on with")
        for problem in problems:
            logger.warning("%s; going on from %s", problem, path.name)
        return path, content
    raise CheckpointError(f"ckpt_path: nothing to go on from: {'; '.join(problems)}")


def _check_same_run(cfg: DictConfig, content: Mapping[str, Any], path: Path) -> None:
    stored = stored_cfg(path, content["hyper_parameters"])
    changed = [
        f"{name} was {stored[name]}, now {value}"
        for name, value in plain(cfg).items()
        if name not in FREE_KEYS and name in stored and stored[name] != value
    ]
    if changed:
        raise ConfigError(
            f"{path}: cannot go on as another run: {'; '.join(changed)}; resume with the run's config.yml, or start a "
            "new run"
        )
