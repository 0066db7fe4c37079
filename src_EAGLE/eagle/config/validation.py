"""Complete and type-check configurations; mistakes raise one-line errors."""

import dataclasses
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eagle.config.schema import RANDOM_WEIGHTS, EvalConfig, TrainConfig
from eagle.errors import ConfigError, unknown_name_message

CONFIG_DIR = Path(__file__).resolve().parents[3] / "configs"
# In the package, so installed copies contain it; configs/fidelity links to it.
_FIDELITY_DIR = Path(__file__).parent / "fidelity"
# Keys that a value of ``fidelity`` sets, unless they are given.
FIDELITIES: dict[str, Any] = {
    file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in _FIDELITY_DIR.glob("*.yml")
}

Schema = TypeVar("Schema")


def validated(schema: type[Schema], values: Mapping[str, Any] | DictConfig) -> DictConfig:
    """Complete ``values`` with the schema's defaults, check every key, and return a read-only DictConfig.

    Retired published keys are ignored. A single string or number for a key that takes a list becomes a list of one.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type, is not among the choices or is out of
            range. For an unknown key the message suggests the nearest valid name.
    """
    node = values if isinstance(values, DictConfig) else OmegaConf.create(dict(values))
    retired = retired_keys_in(node, schema)
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    config = OmegaConf.structured(schema)
    try:
        resolved = OmegaConf.to_container(node, resolve=True)
        given = {str(name): value for name, value in dict(resolved).items() if name not in retired}  # type: ignore[arg-type]
        refuse_unknown("key", given, fields)
        if issubclass(schema, TrainConfig):
            fidelity = str(given.get("fidelity", "released"))
            refuse_unknown("value of fidelity", [fidelity], FIDELITIES)
            given = FIDELITIES[fidelity] | given
        for name, value in given.items():
            is_lone = isinstance(value, (str, int, float)) and value != MISSING and takes(schema, name, list)
            config[name] = [value] if is_lone else value
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    for name in sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(f"{name}: must be given: {fields[re.split(r'[.[]', name)[0]].metadata['meaning']}")
    for name, field in fields.items():
        _check_value(name, config[name], field.metadata)
    OmegaConf.set_readonly(config, True)
    return config


def complete_config(config: Any) -> DictConfig:
    """Complete a TrainConfig from a mapping, or from attributes as a released checkpoint's ``cfg`` has them.

    Unknown keys are ignored and missing keys take their defaults. Raises ConfigError as ``validated`` does.
    """
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    if not isinstance(config, Mapping):
        config = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return validated(TrainConfig, {name: config[name] for name in names if name in config})


def label_smoothing(config: Any) -> float:
    """Label smoothing of ObjNCE; for a configuration without the key, as released: 0.1 on Cityscapes, otherwise 0."""
    value = getattr(config, "label_smoothing", None)
    released = 0.1 if getattr(config, "dataset_name", None) == "cityscapes" else 0.0
    return released if value is None else float(value)


def absolute_paths(schema: type, values: Mapping[str, Any] | DictConfig, folder: Path) -> dict[str, Any]:
    """Select the paths among ``values`` and make relative ones absolute, starting from ``folder``."""
    names = [field.name for field in dataclasses.fields(schema) if field.metadata["path"] and values.get(field.name)]
    return {name: _absolute(values[name], folder) for name in names}


def plain(config: DictConfig) -> dict[str, Any]:
    """Convert a configuration to Python's dicts and lists."""
    return {str(name): value for name, value in dict(OmegaConf.to_container(config)).items()}  # type: ignore[arg-type]


def retired_keys_in(names: Iterable[Any], schema: type) -> list[str]:
    """The published keys among ``names`` that the schema's command ignores."""
    retired = {*RETIRED_KEYS.split(), *(RETIRED_IN_EVALUATION.split() if issubclass(schema, EvalConfig) else ())}
    retired -= {field.name for field in dataclasses.fields(schema)}
    return [str(name) for name in names if str(name) in retired]


def refuse_unknown(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise ConfigError for the first of ``names`` that is not in ``known``, with the nearest known name."""
    for name in names:
        if name not in known:
            raise ConfigError(unknown_name_message(kind, name, known))


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, (list, ListConfig)):
        return [_absolute(item, folder) for item in value]
    return value if value == RANDOM_WEIGHTS else os.path.normpath(folder / str(value))


def check_resolution(name: str, res: int, patch_size: int) -> None:
    """Raise ConfigError, with the nearest valid sizes, if ``res`` is not a positive multiple of the patch size."""
    if res < 1 or res % patch_size:
        below = max(0, res // patch_size * patch_size)
        nearest = f"{below} or {below + patch_size}" if below else f"{patch_size}"
        raise ConfigError(f"{name}: {res} is not a multiple of the patch size {patch_size}; use {nearest}")


def with_overrides(cfg: DictConfig, **overrides: Any) -> DictConfig:
    """Copy a TrainConfig with some keys changed, and validate it."""
    return complete_config({**cfg, **overrides})


def takes(schema: type, name: str, kind: type) -> bool:
    """Whether a key of a schema is declared as a ``kind`` (list or dict), or as that or None."""
    declared = {field.name: field.type for field in dataclasses.fields(schema)}.get(name.lstrip("+").partition(".")[0])
    return any(get_origin(option) is kind for option in (declared, *get_args(declared)))


def _check_value(name: str, value: Any, rules: Mapping[str, Any]) -> None:
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}: {value} is not a finite number")
    if rules["choices"] and value not in rules["choices"]:
        raise ConfigError(unknown_name_message(f"value of {name}", str(value), rules["choices"]))
    if rules["minimum"] is not None and value < rules["minimum"]:
        raise ConfigError(f"{name}: {value} is too small; the least is {rules['minimum']}")
    if rules["above"] is not None and value <= rules["above"]:
        raise ConfigError(f"{name}: {value} must be larger than {rules['above']}")
    if rules["maximum"] is not None and value > rules["maximum"]:
        raise ConfigError(f"{name}: {value} is too large; the most is {rules['maximum']}")


# Published keys, and one of earlier versions, without effect here; docs/differences.md has the reasons.
RETIRED_KEYS = (
    "arch dino_feat_type continuous granularity loader_crop_type use_true_labels use_recalibrator use_fit_model "
    "use_salience stop_at_zero use_head reset_probe_steps recluster_threshold has_labels num_neighbors "
    "pos_intra_weight pos_intra_shift pos_inter_shift neg_inter_shift aug_alignment_weight rec_weight "
    "repulsion_weight crf_weight alpha beta gamma w1 w2 shift crf_samples color_space hist_freq azureml_logging "
    "submitting_to_aml num_gpus use_ddp dark_mode log_dir name full_name rank_timeout"
)
# Keys of the released eval_config.yml that have an effect in other commands only.
RETIRED_IN_EVALUATION = (
    "output_root experiment_name run_picie dataset_name model_type dino_patch_size pretrained_weights projection_type"
)
