"""The two file formats of a trained segmenter: Lightning .ckpt, and slim .safetensors with a YAML file."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from eagle.checkpoints.paths import require_checkpoint
from eagle.checkpoints.safe_pickles import read_pickle
from eagle.config.schema import TrainConfig
from eagle.config.validation import plain
from eagle.data.labels import ClassMap, class_map_from_plain
from eagle.errors import CheckpointError
from eagle.files import write_text_atomically, written_atomically

CKPT, SLIM = ".ckpt", ".safetensors"

# Tensor whose hash ties a saved matching to its checkpoint, and the key of that hash in an evaluation's JSON.
_CENTRES, _HASH_KEY = "cluster_probe.clusters", "cluster_probe"
# Per probe, the tensor with one row per cluster.
_ROW_PER_CLUSTER = {"cluster": _CENTRES, "linear": "linear_probe.weight"}

# Lightning's record of a training run. What ``global_step`` counts depends on the Lightning version.
TRAINING_RECORD = ("pytorch-lightning_version", "global_step", "epoch")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredSegmenter:
    """Content of a segmenter's file, not yet checked against the model.

    Attributes:
        n_classes: number of classes of its dataset.
        cfg: training configuration in plain containers.
        tensors: state dict.
        class_map: names of classes and clusters, from the file or its evaluation; None if neither has them.
        training: the entries of ``TRAINING_RECORD`` that the file has.
    """

    n_classes: int
    cfg: dict[str, Any]
    tensors: Mapping[str, Tensor]
    class_map: ClassMap | None
    training: dict[str, Any] = field(default_factory=dict)


def read_stored(path: Path) -> StoredSegmenter:
    """Read a checkpoint of either format, released or ours, without running code in it.

    Args:
        path: ``NAME.ckpt`` (or any other torch.save file), or ``NAME.safetensors`` with ``NAME.yml``. The class map of
            a .ckpt comes from ``NAME_eval.json`` if that evaluated the same clusters.

    Raises:
        CheckpointError: the file is missing, unreadable or not a segmenter's.
    """
    return _read_slim(path) if path.suffix == SLIM else _read_ckpt(path)


def write_stored(stored: StoredSegmenter, path: Path) -> None:
    """Write a segmenter as ``NAME.ckpt``, or as ``NAME.safetensors`` with ``NAME.yml``, by the suffix of ``path``.

    Raises:
        CheckpointError: any other suffix.
    """
    if path.suffix == SLIM:
        description: dict[str, Any] = {"n_classes": stored.n_classes, "cfg": stored.cfg, **stored.training}
        if stored.class_map is not None:
            description["class_map"] = stored.class_map.to_plain()
        with written_atomically(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in stored.tensors.items()}, temporary)
        write_text_atomically(path.with_suffix(".yml"), yaml.safe_dump(description, sort_keys=False))
    elif path.suffix == CKPT:
        hyper_parameters = {"n_classes": stored.n_classes, "cfg": stored.cfg}
        with written_atomically(path) as temporary:
            content = {"state_dict": dict(stored.tensors), "hyper_parameters": hyper_parameters, **stored.training}
            torch.save(content, temporary)
        if stored.class_map is not None:
            evaluation = {**probe_entry(stored.tensors), "class_map": stored.class_map.to_plain()}
            write_text_atomically(evaluation_file(path), json.dumps(evaluation, indent=2) + "\n")
    else:
        raise CheckpointError(f"{path}: a checkpoint's name ends in {CKPT} or {SLIM}")


def evaluation_file(path: Path) -> Path:
    """Path of a checkpoint's evaluation JSON."""
    return path.with_name(f"{path.stem}_eval.json")


def probe_entry(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The evaluation JSON's entry with a hash of the cluster centres; empty for a state dict without them."""
    centres = tensors.get(_CENTRES)
    if centres is None:
        return {}
    return {_HASH_KEY: hashlib.sha256(centres.detach().float().cpu().numpy().tobytes()).hexdigest()[:16]}


def _read_ckpt(path: Path) -> StoredSegmenter:
    content = read_pickle(path)
    tensors, hyper_parameters = content.get("state_dict"), content.get("hyper_parameters")
    if not isinstance(tensors, Mapping) or not isinstance(hyper_parameters, Mapping):
        raise CheckpointError(f"{path}: not a segmenter checkpoint: it lacks state_dict or hyper_parameters")
    return _stored(path, hyper_parameters, tensors, _evaluated_class_map(path, tensors), _training_record(content))


def _read_slim(path: Path) -> StoredSegmenter:
    require_checkpoint(path)
    beside = path.with_suffix(".yml")
    if not beside.is_file():
        raise CheckpointError(f"{beside}: missing; a slim checkpoint is {path.name} and {beside.name}")
    try:
        tensors = load_file(path)
        description = yaml.safe_load(beside.read_text(encoding="utf-8"))
        class_map = class_map_from_plain(description["class_map"]) if "class_map" in description else None
    except (SafetensorError, yaml.YAMLError, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: it or {beside.name} is not readable ({reason})") from error
    return _stored(path, description, tensors, class_map, _training_record(description))


def _training_record(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in TRAINING_RECORD if isinstance(content.get(name), (str, int))}


def _check_lengths(class_map: ClassMap, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a map's assignments do not match its probe's number of clusters."""
    for probe, tensor in _ROW_PER_CLUSTER.items():
        for name, classes in class_map.assignments.items():
            if name.startswith(probe) and tensor in tensors and len(classes) != len(tensors[tensor]):
                raise ValueError(f"assignments of {name}: {len(classes)} for {len(tensors[tensor])} clusters")


def _stored(
    path: Path,
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    class_map: ClassMap | None,
    training: dict[str, Any],
) -> StoredSegmenter:
    if not {"n_classes", "cfg"} <= description.keys():
        raise CheckpointError(f"{path}: not a segmenter checkpoint: its hyper-parameters lack n_classes or cfg")
    try:
        cfg = stored_cfg(path, description)
        return StoredSegmenter(int(description["n_classes"]), cfg, tensors, class_map, training)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its n_classes or cfg is malformed ({error})") from error


def stored_cfg(path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """The training configuration in a file's hyper-parameters, as plain containers.

    Raises:
        CheckpointError: a value of a key in TrainConfig is an interpolation such as ``${oc.env:NAME}``. Resolving it
            would expose this machine's environment to the author of the file. Unknown keys are never resolved.
    """
    cfg = _plain(description["cfg"])
    used = {field.name: cfg[field.name] for field in dataclasses.fields(TrainConfig) if field.name in cfg}
    # An untrusted pickle can nest OmegaConf nodes anywhere; in plain form only strings can interpolate.
    for name, value in plain(OmegaConf.create(used, flags={"allow_objects": True})).items():
        if "${" in str(value):
            raise CheckpointError(f"{path}: its {name} is {value!r}; only your own YAML files may interpolate")
    return cfg


def _plain(cfg: Any) -> dict[str, Any]:
    if isinstance(cfg, (DictConfig, ListConfig)):
        cfg = OmegaConf.to_container(cfg)
    return dict(cfg) if isinstance(cfg, Mapping) else dict(vars(cfg))


def _evaluated_class_map(path: Path, tensors: Mapping[str, Tensor]) -> ClassMap | None:
    """The class map in a checkpoint's evaluation; None without one, or if other clusters were evaluated.

    An evaluation without a hash of its clusters (an old or hand-written one) is trusted.
    """
    beside = evaluation_file(path)
    if not beside.is_file():
        return None
    try:
        evaluation = json.loads(beside.read_text(encoding="utf-8"))
        if "class_map" not in evaluation:
            return None
        class_map = class_map_from_plain(evaluation["class_map"])
        _check_lengths(class_map, tensors)
        if _HASH_KEY in evaluation and evaluation[_HASH_KEY] != probe_entry(tensors).get(_HASH_KEY):
            raise ValueError("made with another checkpoint")
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else error
        logger.warning("%s: ignored with its class names (%s); evaluate %s again", beside, reason, path)
        return None
    return class_map
