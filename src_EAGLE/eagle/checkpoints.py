"""Checkpoints, released or ours: reading them without running their code, loading, converting.

A trained segmenter has two file formats: Lightning's ``NAME.ckpt``, and slim ``NAME.safetensors`` with ``NAME.yml``.
"""

import dataclasses
import hashlib
import json
import logging
import pickle
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf, base, nodes
from safetensors.torch import load_file, save
from torch import Tensor

from eagle.config.schema import DatasetConfig, TrainConfig, keys_with
from eagle.config.validation import complete_config, plain, with_overrides
from eagle.data.labels import ClassMap, class_map_from_plain
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import CheckpointError, ConfigError, one_line
from eagle.files import looks_like_html, write_text_atomically, written_atomically
from eagle.models.backbone import timm_name
from eagle.models.cluster_tree import ClusterTree
from eagle.models.weights import tensor_mismatches
from eagle.segmenter import PUBLISHED_LEFTOVERS, LitUnsupervisedSegmenter

CKPT, SLIM = ".ckpt", ".safetensors"

# Tensor whose hash ties a saved matching to its checkpoint, and the key of that hash in an evaluation's JSON.
_CENTRES, _HASH_KEY = "cluster_probe.clusters", "cluster_probe"
# Prefix of the tree of clusters; its tensors are in a checkpoint only once a tree has been fitted.
_TREE = "cluster_tree."

# Lightning's record of a training run. What ``global_step`` counts depends on the Lightning version.
TRAINING_RECORD = ("pytorch-lightning_version", "global_step", "epoch")

# Architecture keys; an invalid value is an error.
_MODEL_KEYS = set(keys_with(TrainConfig, "model", "backbone"))

# Every segmenter has tensors with these prefixes.
_SEGMENTER_PREFIXES = ("net.", "cluster_probe.", "linear_probe.")

# The classes in a DictConfig's pickle, for OmegaConf 2.0 to 2.3.
_OMEGACONF = [
    DictConfig, ListConfig, base.Metadata, base.ContainerMetadata, nodes.AnyNode, nodes.IntegerNode,
    nodes.FloatNode, nodes.StringNode, nodes.BooleanNode, Any, defaultdict, dict, list, int, float, str, bool,
]  # fmt: skip

_MODEL_CARD = """\
- **Method**: EAGLE, trained without labels. Labelled images or a person name the clusters afterwards.
- **Data**: {data}. The images keep the licence of their source.
- **Backbone**: `{backbone}`, frozen. Its weights keep their publisher's licence, which holds for this model too.
- {scores}.
- **Limits**: one seed. Rare and small things share clusters with others, and images unlike the training images have no
  meaningful clusters. Look at masks of your own images before you rely on shares or counts."""

# Lightning before 1.5 pickles callback classes, as keys of their states, and its own dict class for hyper-parameters.
_LIGHTNING_CALLBACKS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
)
_LIGHTNING_DICT = "pytorch_lightning.utilities.parsing.AttributeDict"
_ALLOWED: list[Any] = [
    *_OMEGACONF,
    (dict, _LIGHTNING_DICT),
    *((type(name, (), {}), name) for name in _LIGHTNING_CALLBACKS),
]

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


def load_segmenter(path: str | Path, map_location: Any = "cpu") -> LitUnsupervisedSegmenter:
    """Load the Lightning module of a checkpoint, backbone included.

    Args:
        path: a Lightning .ckpt with ``state_dict`` and ``hyper_parameters`` {``n_classes``, ``cfg``}, or a slim
            .safetensors with its .yml (``scripts/convert_checkpoint.py``).
        map_location: device of the result.

    Returns:
        The Lightning module in eval mode. Its ``training_record`` has the file's ``pytorch-lightning_version``,
        ``global_step`` and ``epoch``. For photographs use ``eagle.load_segmenter``, which prepares images and masks.

    Raises:
        CheckpointError: the file is missing, unreadable or not a segmenter's; or tensors are missing, unknown or
            of the wrong shape, which the message lists.
    """
    return build_segmenter(read_stored(Path(path)), Path(path)).to(map_location).eval()


def build_segmenter(stored: StoredSegmenter, path: Path) -> LitUnsupervisedSegmenter:
    """Build a segmenter from a file's content; raises CheckpointError if its tensors do not fit its configuration."""
    if not any(name.startswith(_SEGMENTER_PREFIXES) for name in stored.tensors):
        prefixes = ", ".join(_SEGMENTER_PREFIXES)
        raise CheckpointError(f"{path}: holds no segmenter: no tensor name begins with {prefixes}")
    try:
        segmenter = LitUnsupervisedSegmenter(stored.n_classes, _usable(stored.cfg, path), pretrained=False)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its configuration does not describe a model: {error}") from error
    tensors = {name: tensor for name, tensor in stored.tensors.items() if not name.startswith(PUBLISHED_LEFTOVERS)}
    if tree := _stored_tree(tensors, path):
        segmenter.cluster_tree = tree
        # Not in a file from when a leaf had one centre.
        tensors.setdefault(f"{_TREE}leaf_of_centre", tree.leaf_of_centre)
    if mismatches := tensor_mismatches(tensors, segmenter.state_dict()):
        raise CheckpointError(f"{path}: does not fit the model in its configuration: {mismatches}")
    segmenter.load_state_dict(tensors)
    segmenter.training_record = dict(stored.training)
    return segmenter


def _stored_tree(tensors: Mapping[str, Tensor], path: Path) -> ClusterTree | None:
    """The tree that ``fit_clusters.py`` has added to a checkpoint, if any."""
    parts = {name.removeprefix(_TREE): part for name, part in tensors.items() if name.startswith(_TREE)}
    try:
        return ClusterTree(**parts) if parts else None
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its tree of clusters is damaged ({error}); fit it again") from error


def dataset_config(trained: DictConfig, data_dir: str | None) -> DictConfig:
    """A segmenter's configuration with the folder of its data sets on this machine.

    A folder that is given comes first, then the training folder if it exists, then the default folder. Released
    checkpoints name a folder on the authors' machine.
    """
    if data_dir is None and not Path(trained.pytorch_data_dir).is_dir():
        data_dir = DatasetConfig.pytorch_data_dir
    return trained if data_dir is None else with_overrides(trained, pytorch_data_dir=data_dir)


def convert(source: Path, target: Path) -> None:
    """Convert a checkpoint to the format of the target's suffix, without optimiser state and unused tensors.

    Raises:
        CheckpointError: as for ``load_segmenter``, the target's suffix is neither .ckpt nor .safetensors, or the target
            is the source.
    """
    if set(map(Path.resolve, checkpoint_files(source))) & set(map(Path.resolve, checkpoint_files(target))):
        raise CheckpointError(f"target: {target} is the source, which would be replaced; name another file")
    stored = read_stored(source)
    segmenter = build_segmenter(stored, source)
    write_stored(replace(stored, cfg=dict(segmenter.hparams["cfg"]), tensors=segmenter.state_dict()), target)


def _usable(cfg: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The configuration without values that are invalid here, e.g. an old precision; architecture keys all stay."""
    usable = dict(cfg)
    with suppress(ConfigError):
        complete_config(usable)
        return usable
    for name in sorted(cfg.keys() - _MODEL_KEYS):
        try:
            complete_config({name: cfg[name]})
        except ConfigError as error:
            logger.warning("%s: ignored in its configuration: %s", path, error)
            del usable[name]
    return usable


def read_stored(path: Path) -> StoredSegmenter:
    """Read a checkpoint of either format, released or ours, without running code in it.

    Args:
        path: ``NAME.ckpt`` (or any other torch.save file), or ``NAME.safetensors`` with ``NAME.yml``. The class map of
            a .ckpt comes from ``NAME_eval.json`` if that evaluated the same clusters.

    Raises:
        CheckpointError: the file is missing, unreadable or not a segmenter's.
    """
    tensors: Any
    content: Mapping[str, Any]
    if path.suffix == SLIM:
        tensors, content, class_map = _read_slim(path)
        description: Any = content
    else:
        content = read_pickle(path)
        tensors, description = content.get("state_dict"), content.get("hyper_parameters")
        if not isinstance(tensors, Mapping) or not isinstance(description, Mapping):
            raise CheckpointError(f"{path}: not a segmenter checkpoint: it lacks state_dict or hyper_parameters")
        class_map = _evaluated_class_map(path, tensors)
    if not {"n_classes", "cfg"} <= description.keys():
        raise CheckpointError(f"{path}: not a segmenter checkpoint: its hyper-parameters lack n_classes or cfg")
    training = {name: content[name] for name in TRAINING_RECORD if isinstance(content.get(name), (str, int))}
    try:
        cfg = stored_cfg(path, description)
        return StoredSegmenter(int(description["n_classes"]), cfg, tensors, class_map, training)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its n_classes or cfg is malformed ({error})") from error


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
            temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in stored.tensors.items()}))
        write_text_atomically(path.with_suffix(".yml"), yaml.safe_dump(description, sort_keys=False))
    elif path.suffix == CKPT:
        hyper_parameters = {"n_classes": stored.n_classes, "cfg": stored.cfg}
        with written_atomically(path) as temporary:
            content = {"state_dict": dict(stored.tensors), "hyper_parameters": hyper_parameters, **stored.training}
            torch.save(content, temporary)
        # An evaluation of these clusters, which has more than their classes, stays.
        if stored.class_map is not None and _evaluated_class_map(path, stored.tensors) is None:
            evaluation = {**probe_entry(stored.tensors), "class_map": stored.class_map.to_plain()}
            write_text_atomically(evaluation_file(path), json.dumps(evaluation, indent=2) + "\n")
    else:
        raise CheckpointError(f"{path}: a checkpoint's name ends in {CKPT} or {SLIM}")


def checkpoint_files(path: Path) -> list[Path]:
    """The file of a checkpoint, and its .yml if it is slim."""
    return [path, path.with_suffix(".yml")] if path.suffix == SLIM else [path]


def evaluation_file(path: Path) -> Path:
    """Path of a checkpoint's evaluation JSON."""
    return path.with_name(f"{path.stem}_eval.json")


def model_card(cfg: Any, data: str, scores: str) -> str:
    """What a user of a segmenter must know, as a Markdown list.

    Args:
        cfg: its training configuration.
        data: what it was trained on.
        scores: Markdown text without a full stop.
    """
    backbone = timm_name(cfg.model_type, cfg.dino_patch_size)[0]
    return _MODEL_CARD.format(data=data, backbone=backbone, scores=scores)


def probe_entry(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The evaluation JSON's entry with a hash of the cluster centres; empty for a state dict without them."""
    found = [tensors[name] for name in (_CENTRES, f"{_TREE}leaves", f"{_TREE}merges") if name in tensors]
    if not found:
        return {}
    content = b"".join(tensor.detach().float().cpu().numpy().tobytes() for tensor in found)
    return {_HASH_KEY: hashlib.sha256(content).hexdigest()[:16]}


def _read_slim(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], ClassMap | None]:
    require_checkpoint(path)
    beside = path.with_suffix(".yml")
    if not beside.is_file():
        raise CheckpointError(f"{beside}: missing; a slim checkpoint is {path.name} and {beside.name}")
    try:
        tensors = load_file(path)
        description = dict(yaml.safe_load(beside.read_text(encoding="utf-8")))
        class_map = class_map_from_plain(description["class_map"]) if "class_map" in description else None
    except Exception as error:  # of a damaged file, e.g. RecursionError
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: it or {beside.name} is not readable ({reason})") from error
    return tensors, description, class_map


def stored_cfg(path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """The training configuration in a file's hyper-parameters, as plain containers.

    Raises:
        CheckpointError: a value of a key in TrainConfig is an interpolation such as ``${oc.env:NAME}``. Resolving it
            would expose this machine's environment to the author of the file. Unknown keys are never resolved.
    """
    stored = description["cfg"]
    cfg: dict[str, Any] = dict(OmegaConf.to_container(stored) if OmegaConf.is_config(stored) else stored)  # type: ignore[arg-type]
    used = {field.name: cfg[field.name] for field in dataclasses.fields(TrainConfig) if field.name in cfg}
    # An untrusted pickle can nest OmegaConf nodes anywhere; in plain form only strings can interpolate.
    for name, value in plain(OmegaConf.create(used, flags={"allow_objects": True})).items():
        if "${" in str(value):
            raise CheckpointError(f"{path}: its {name} is {value!r}; only your own YAML files may interpolate")
    return cfg


def _evaluated_class_map(path: Path, tensors: Mapping[str, Tensor]) -> ClassMap | None:
    """The class map in a checkpoint's evaluation; None without one, or if other clusters were evaluated."""
    beside = evaluation_file(path)
    if not beside.is_file():
        return None
    try:
        evaluation = json.loads(beside.read_text(encoding="utf-8"))
        if "class_map" not in evaluation:
            return None
        if evaluation.get(_HASH_KEY) != probe_entry(tensors).get(_HASH_KEY):
            raise ValueError("made with another checkpoint")
        return class_map_from_plain(evaluation["class_map"])
    except Exception as error:  # of a damaged file, e.g. RecursionError
        reason = f"lacks {error}" if isinstance(error, KeyError) else error
        logger.warning("%s: ignored with its class names (%s); evaluate %s again", beside, reason, path)
        return None


def read_pickle(path: Path) -> Mapping[str, Any]:
    """The mapping in a torch.save file, with tensors on the CPU and stand-ins for callback classes.

    Args:
        path: a file in torch's zip format or its older one.

    Raises:
        CheckpointError: the file is missing, empty, truncated, a web page, or holds anything but tensors, plain
            containers and OmegaConf's.
    """
    require_checkpoint(path)
    with path.open("rb") as file:
        if looks_like_html(file.read(1024)):
            raise CheckpointError(f"{path}: is a web page, not a checkpoint; download it again with download_models.py")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path}: not a readable checkpoint ({_reason(error)})") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def _reason(error: Exception) -> str:
    """One line: the class or function that was refused, or what failed."""
    if isinstance(error, pickle.UnpicklingError):
        refused = [line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line]
        if refused:
            return " ".join(refused[0].split())[:160]
        return "another kind of file, or a damaged one"  # torch says how to read it without safety
    text = one_line(error)[:120]
    return "empty, truncated or damaged" + (f": {text}" if text else "")
