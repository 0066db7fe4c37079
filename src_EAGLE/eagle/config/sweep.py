"""The jobs of ``--multirun``: their values are checked first, and each runs in a process and a folder of its own."""

import hashlib
import logging
import multiprocessing
import os
import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from omegaconf import DictConfig, OmegaConf

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.config.words import CommandLine, quoted
from eagle.errors import ConfigError
from eagle.files import sha256_of, write_text_atomically
from eagle.processes import end_with, run_script

# In a run's folder: the configuration of a job that a sweep has finished.
JOB_NAME = "sweep_job.yml"
_LONGEST_NAME = 150

logger = logging.getLogger(__name__)


def check_sweep(schema: type, line: CommandLine) -> set[str]:
    """Validate every value of a sweep before its first job; sweepers that draw values choose them later.

    The folder of a sweep of training runs without ``experiment_name`` is named by its keys and a hash of its words.

    Returns:
        The keys that do not tell the jobs apart, because the command line gives them one value.
    """
    parsed = [o for o in OverridesParser.create().parse_overrides(line.overrides) if not o.is_hydra_override()]
    swept = [override for override in parsed if override.is_sweep_override()]
    single = [override for override in parsed if not override.is_sweep_override()]
    whole = {o.key_or_group: o.value() for o in single if not o.is_add() and "." not in o.key_or_group}
    whole = {name: value for name, value in line.yaml.items() if name != "hydra"} | whole
    if issubclass(schema, TrainConfig):
        if any(override.key_or_group == "ckpt_path" for override in parsed):
            raise ConfigError("ckpt_path: the runs of a sweep resume their own checkpoints; leave it out")
        if not whole.get("experiment_name"):
            keys = "_".join(["sweep", *sorted(override.key_or_group for override in swept)])
            # The same name each time that the command is typed.
            line.overrides.append(f"experiment_name={short_name(keys, (*line.config_options, *line.overrides))}")
    for override in swept:
        name = override.key_or_group
        if name in ("output_root", "experiment_name"):
            raise ConfigError(f"{name}: names the folder of the whole sweep, so give one value")
        has_values = override.is_discrete_sweep() and override.value_type != ValueType.GLOB_CHOICE_SWEEP
        for value in override.sweep_iterator() if has_values and "." not in name and not override.is_add() else ():
            validated(schema, {**whole, name: value})
    return {override.key_or_group for override in single} | {"experiment_name"}


def run_job(schema: type, script: Path, line: CommandLine, fixed: set[str], composed: DictConfig) -> None:
    """Run one job of a sweep in a process of its own; a launcher may call this on another machine.

    A training run gets a folder of its own in the sweep's. One that was stopped or killed goes on, and one that is
    finished with the same configuration is not run again.
    """
    if multiprocessing.parent_process() is not None:
        # A worker of joblib goes on after its parent was killed: jobs would run beside those of the repeated command.
        end_with(os.getppid())
    overrides = [str(word) for word in HydraConfig.get().overrides.task]
    swept = [word.lstrip("+") for word in overrides if word.lstrip("+").partition("=")[0] not in fixed]
    name = short_name(",".join(sorted(word.replace("'", "") for word in swept)) or "job")
    words = [*line.config_options, *overrides]
    if not issubclass(schema, TrainConfig):
        run_script(script, words, f"job {name}")
        return
    sweep, cfg = Path(composed.output_root) / composed.experiment_name, validated(schema, composed)
    record, content = sweep / name / JOB_NAME, OmegaConf.to_yaml(cfg)
    if cfg.pretrained_weights and Path(cfg.pretrained_weights).is_file():
        content += f"# sha256 of pretrained_weights: {sha256_of(Path(cfg.pretrained_weights))}\n"
    if record.is_file() and record.read_text(encoding="utf-8") == content:
        logger.info("%s: already finished", name)
        return
    place = {"output_root": str(sweep), "experiment_name": name, "ckpt_path": "last"}
    run_script(script, [*words, *(f"{key}={quoted(value)}" for key, value in place.items())], f"job {name}")
    write_text_atomically(record, content)


def short_name(name: str, told_apart_by: Any = None) -> str:
    """A valid file name of at most 150 characters and a hash, which it has if ``name`` does not say all."""
    safe = re.sub(r"[^\w.,=+\-]", "_", name)[:_LONGEST_NAME]
    if safe == name and told_apart_by is None:
        return name
    return f"{safe}_{hashlib.sha256(repr((name, told_apart_by)).encode()).hexdigest()[:6]}"
