"""Find a run's folder and the checkpoint to resume from, also after SLURM requeued the job; check that both fit."""

import logging
import os
import subprocess
from datetime import datetime
from pathlib import Path

import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from omegaconf import DictConfig
from torch import nn

from eagle.checkpoints import read_pickle, stored_cfg
from eagle.config.schema import RANDOM_WEIGHTS, TrainConfig, keys_with
from eagle.config.validation import plain
from eagle.console import shell_command
from eagle.data.datamodule import SegmentationDataModule
from eagle.data.datasets.catalog import dataset_label
from eagle.errors import CheckpointError, ConfigError, DataError

# Value of ckpt_path for the run's own newest checkpoint.
LAST = "last"
LAST_NAME = "last.ckpt"

# Prefix of the backbone's tensors in a checkpoint.
_BACKBONE = "net.model."

# Entry of a checkpoint with the random states of all processes.
RANDOM_STATES = "random_states"

# Keys that only our trainer writes. Released checkpoints cannot be resumed: their global_step may count the steps of
# seven optimisers.
RUN_STATE = {"global_step", "loops", "optimizer_states", RANDOM_STATES}

# Keys that may change when a run is resumed.
FREE_KEYS = set(keys_with(TrainConfig, "machine", "numerics", "adjustable"))

logger = logging.getLogger(__name__)


def run_folder(cfg: DictConfig) -> Path:
    """Return the folder of the checkpoint to resume from, or the one that ``experiment_name`` names, or a new one.

    A new folder is named by the time or, under SLURM, by the job id, so that a requeued job finds it again. If the
    clocks of processes differ, rank zero's name counts, because it alone writes.
    """
    if cfg.ckpt_path not in (None, LAST):
        return Path(cfg.ckpt_path).resolve().parent
    if cfg.ckpt_path == LAST and cfg.experiment_name is None:
        raise ConfigError(f"ckpt_path: {LAST} needs experiment_name, the name of the run to resume")
    when = f"job_{job_id()}" if SLURMEnvironment.detect() else datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    name = cfg.experiment_name or f"{Path(dataset_label(cfg)).name}_{cfg.model_type}_{when}"
    return Path(cfg.output_root) / name


def find_resumption(cfg: DictConfig, run_dir: Path) -> tuple[Path | None, int]:
    """Find the checkpoint that ``ckpt_path`` names, and its steps; None starts a new run.

    ``last`` takes ``last.ckpt``. Without one it starts a new run, so one command starts and resumes a run. A job that
    SLURM requeued implies ``last``.

    Args:
        cfg: a validated TrainConfig.
        run_dir: the run's folder.

    Raises:
        CheckpointError: the checkpoint is missing or unreadable, or was not written by our trainer.
        ConfigError: keys that affect the result differ from the checkpoint's, more steps than ``max_steps`` are done,
            or ``ckpt_path`` is none and the folder already holds a run.
    """
    was_requeued = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
    if cfg.ckpt_path == LAST or (cfg.ckpt_path is None and was_requeued):
        path = run_dir / LAST_NAME
        if not path.is_file():
            logger.info("%s: no checkpoint to resume from; starting a new run", run_dir)
            return None, 0
    elif cfg.ckpt_path is None:
        # Every process checks: none writes a checkpoint or metrics before all start training.
        if any((run_dir / name).exists() for name in (LAST_NAME, "metrics.csv")):
            raise ConfigError(
                f"experiment_name: {run_dir} already holds a run; choose another name, delete the folder, or resume "
                f"the run with ckpt_path={LAST}"
            )
        return None, 0
    else:
        path = Path(cfg.ckpt_path)
    content = read_pickle(path)
    if not content.keys() >= RUN_STATE:
        raise CheckpointError(f"ckpt_path: {path} holds a model but no training state of our trainer to resume")
    stored = stored_cfg(path, content["hyper_parameters"])
    decisive = {name: value for name, value in plain(cfg).items() if name in stored and name not in FREE_KEYS}
    changed = [f"{name} from {stored[name]} to {new}" for name, new in decisive.items() if stored[name] != new]
    if changed:
        raise ConfigError(
            f"{path}: a resumed run cannot change {'; '.join(changed)}; resume with the run's config.yml, or start a "
            "new run"
        )
    steps_done = int(content["global_step"])
    if steps_done > cfg.max_steps:
        raise ConfigError(f"max_steps: {path} has {steps_done} steps, more than {cfg.max_steps}; start a new run")
    return path, steps_done


def check_same_content(path: Path, cfg: DictConfig, backbone: nn.Module, data: SegmentationDataModule) -> None:
    """Raise ConfigError if a run to resume had another backbone, or DataError if it had other training images.

    Random weights of both depend on the seed alone.

    Args:
        path: the run's checkpoint.
        cfg: a validated TrainConfig.
        backbone: with its weights loaded.
        data: without bad images that are left out.
    """
    content = read_pickle(path)
    both = (stored_cfg(path, content["hyper_parameters"]).get("pretrained_weights"), cfg.pretrained_weights)
    if both != (RANDOM_WEIGHTS, RANDOM_WEIGHTS):
        stored = content["state_dict"]
        for name, tensor in backbone.state_dict().items():
            # Almost equal: positions are interpolated, which may differ in the last bit between machines.
            if not torch.allclose(stored[f"{_BACKBONE}{name}"], tensor.cpu(), rtol=1e-4, atol=1e-6):
                raise ConfigError(
                    f"pretrained_weights: {cfg.pretrained_weights} has other weights than the backbone of {path}; "
                    "resume with the run's weights, or start a new run"
                )
    before, now = content.get(type(data).__qualname__), data.state_dict()
    if before and before != now:
        raise DataError(
            f"{path}: was trained on other images than those found now ({before['n_images']} then, {now['n_images']} "
            "now); restore them, or start a new run"
        )


def resume_command(run_dir: Path) -> str:
    """Return the shell command that resumes a run."""
    script = Path(__file__).parents[2] / "train_segmentation_eigen.py"
    return shell_command(script, "--config-name", str((run_dir / "config.yml").resolve()), f"ckpt_path={LAST}")


def job_id() -> str:
    """Return the job's id (JOB, or ARRAY_TASK in an array), which a requeue keeps."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def requeue_job() -> str:
    """Ask SLURM to restart this job; return the outcome as a message."""
    job = job_id()
    try:
        command = ["scontrol", "requeue", job]  # found on the job's PATH
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603  fixed words, no shell
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM could not requeue job {job} ({error})"
    return f"SLURM will restart job {job}"
