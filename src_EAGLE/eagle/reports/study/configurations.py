"""The configurations of a study's runs, and two mistakes that make its tables wrong without an error."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from eagle.config.schema import TrainConfig, keys_with
from eagle.config.validation import CONFIG_DIR, plain, validated
from eagle.errors import ConfigError
from eagle.reports.study.plan import Plan, Run
from eagle.training.resume import changed_keys

# Keys that do not change a run's result.
IGNORED_KEYS = keys_with(TrainConfig, "machine")


def configuration(plan: Plan, run: Run, **place: Any) -> DictConfig:
    """The validated training configuration of a run: the recipe, the plan's keys, the setting's, and ``place``."""
    values = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / f"{plan.recipe}.yml"))
    return validated(TrainConfig, {**values, **plan.overrides(run), **place})  # type: ignore[dict-item]


def check_settings_differ(plan: Plan) -> None:
    """Raise ConfigError if two settings are one configuration, e.g. because the recipe has what one of them sets."""
    names: dict[str, str] = {}
    for setting in dict.fromkeys(run.setting for run in plan.runs):
        content = repr(plain(configuration(plan, Run("", setting, seed=0, crf=False))))
        if content in names:
            raise ConfigError(f"settings {names[content]} and {setting} give the same configuration of {plan.recipe}")
        names[content] = setting


def check_unchanged(plan: Plan, run: Run, folder: Path) -> None:
    """Raise ConfigError if a run's folder holds a run with other keys than the plan and its recipe have now."""
    path = folder / "config.yml"
    if not path.is_file():
        return
    stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    changes = changed_keys(stored, configuration(plan, run), IGNORED_KEYS)
    changed = [f"{name}={old} instead of {new}" for name, (old, new) in changes.items()]
    if changed:
        raise ConfigError(f"{folder}: done with {', '.join(changed)}; move the folder away, and the run is done again")
