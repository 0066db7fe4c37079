"""The plan of a study: which settings run on which data sets with which seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eagle.errors import ConfigError, unknown_name_message

KEYS = ("recipe", "training", "settings", "baselines", "runs")
ROW_KEYS = ("settings", "datasets", "seeds", "crf")


@dataclass(frozen=True)
class Run:
    """One training run of a study.

    Attributes:
        dataset: name of its folder in ``pytorch_data_dir``.
        setting: name of its setting.
        seed: its seed.
        crf: score its maps after the dense CRF too.
    """

    dataset: str
    setting: str
    seed: int
    crf: bool

    def folder(self, root: Path) -> Path:
        """The run's folder below the study's."""
        return root / self.dataset / self.setting / f"seed_{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        recipe: name of the YAML file in ``configs/`` that every run starts from.
        training: keys that all runs set.
        settings: keys that each setting sets on top, by name.
        baselines: the settings that others are compared with.
        runs: in the order in which they are done.
    """

    recipe: str
    training: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    baselines: list[str]
    runs: list[Run]

    def datasets(self) -> list[str]:
        """Names of the data sets, in the order of the plan."""
        return list(dict.fromkeys(run.dataset for run in self.runs))

    def overrides(self, run: Run) -> dict[str, Any]:
        """The keys that a run sets on top of the recipe."""
        own = {"dir_dataset_name": run.dataset, "seed": run.seed}
        return self.training | self.settings[run.setting] | own


def read_plan(path: Path) -> Plan:
    """Read a plan's YAML file; ``scripts/study.yml`` explains the format.

    Raises:
        ConfigError: the file is missing or no plan, or a row names an unknown setting.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"plan: {path}: cannot be read ({error})") from error
    _check_keys(path, content, KEYS)
    assert isinstance(content, dict)
    settings = {str(name): dict(keys or {}) for name, keys in content["settings"].items()}
    baselines = [str(name) for name in content["baselines"] or []]
    _check_settings(path, "baseline", baselines, settings)
    if not baselines:
        raise ConfigError(f"{path}: baselines: name at least one setting")
    runs: dict[tuple[str, str, int], Run] = {}
    for row in content["runs"]:
        _check_keys(path, row, ROW_KEYS, required=ROW_KEYS[:3])
        _check_settings(path, "setting", row["settings"], settings)
        for seed in row["seeds"]:
            for dataset in row["datasets"]:
                for setting in row["settings"]:
                    run = Run(str(dataset), str(setting), int(seed), bool(row.get("crf", False)))
                    runs.setdefault((run.dataset, run.setting, run.seed), run)
    training = dict(content["training"] or {})
    return Plan(str(content["recipe"]), training, settings, baselines, list(runs.values()))


def _check_settings(path: Path, kind: str, names: Sequence[Any], settings: Mapping[str, Any]) -> None:
    for name in names:
        if name not in settings:
            raise ConfigError(f"{path}: {unknown_name_message(kind, str(name), list(settings))}")


def _check_keys(path: Path, content: Any, known: Sequence[str], required: Sequence[str] | None = None) -> None:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: expected the keys {', '.join(known)}, not {content!r}")
    for name in content:
        if name not in known:
            raise ConfigError(f"{path}: {unknown_name_message('key', str(name), known)}")
    missing = [name for name in required or known if name not in content]
    if missing:
        raise ConfigError(f"{path}: lacks {', '.join(missing)}")
