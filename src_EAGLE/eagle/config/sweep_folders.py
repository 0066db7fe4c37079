"""Names of a sweep's folder and of its jobs, the same each time that a command is typed."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from eagle.errors import ConfigError
from eagle.files import default_folder

_LONGEST_NAME = 150


def sweep_folder(
    yaml: DictConfig, config_name: str | None, words: Sequence[str], overrides: Sequence[Override]
) -> Path:
    """Folder of a sweep: ``output_root/experiment_name``, or a name made of the swept keys and the command.

    Args:
        yaml: the composed YAML file.
        config_name: its name.
        words: all overrides as typed.
        overrides: those of the command's keys.

    Raises:
        ConfigError: the sweep varies a key that names its folder, or sets ``ckpt_path``.
    """
    values = dict(yaml)
    for override in overrides:
        name = override.key_or_group
        if name in ("output_root", "experiment_name") and override.is_sweep_override():
            raise ConfigError(f"{name}: names the folder of the whole sweep, so give one value")
        if name == "ckpt_path":
            raise ConfigError("ckpt_path: the runs of a sweep resume their own checkpoints; leave it out")
        if not override.is_sweep_override():
            values[name] = override.value()
    keys = sorted(override.key_or_group for override in overrides if override.is_sweep_override())
    digest = _digest("\n".join([str(config_name), *sorted(words)]))
    name = values.get("experiment_name") or _short("_".join(["sweep", *keys, digest]))
    return Path(str(values.get("output_root") or default_folder("outputs"))) / str(name)


def job_name(swept: Mapping[str, str]) -> str:
    """Folder name of a job, e.g. ``lr_cluster=5e-3,seed=0``."""
    full = ",".join(f"{key}={value}" for key, value in sorted(swept.items())) or "job"
    safe = re.sub(r"[^\w.,=+\-]", "_", full)
    return _short(safe if safe == full else f"{safe}_{_digest(full)}")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}_{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
