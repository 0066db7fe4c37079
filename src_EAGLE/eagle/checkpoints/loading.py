"""Load a trained segmenter from a checkpoint, released or ours, without running code in it."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from eagle.checkpoints.formats import StoredSegmenter, read_stored, write_stored
from eagle.config.schema import TrainConfig, keys_with
from eagle.config.validation import complete_config
from eagle.errors import CheckpointError, ConfigError
from eagle.models.weights import tensor_mismatches
from eagle.segmenter import PUBLISHED_LEFTOVERS, LitUnsupervisedSegmenter

# Architecture keys; an invalid value is an error.
_MODEL_KEYS = set(keys_with(TrainConfig, "model", "backbone"))

# Every segmenter has tensors with these prefixes.
_SEGMENTER_PREFIXES = ("net.", "cluster_probe.", "linear_probe.")

logger = logging.getLogger(__name__)


def load_segmenter(path: str | Path, map_location: Any = "cpu") -> LitUnsupervisedSegmenter:
    """Load a segmenter, backbone included, from a checkpoint.

    Args:
        path: a Lightning .ckpt with ``state_dict`` and ``hyper_parameters`` {``n_classes``, ``cfg``}, or a slim
            .safetensors with its .yml (``scripts/convert_checkpoint.py``).
        map_location: device of the result.

    Returns:
        The Lightning module in eval mode; ``eagle.load_segmenter`` wraps it in methods for photographs. Its
        ``training_record`` has the file's ``pytorch-lightning_version``, ``global_step`` and ``epoch``.

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
    if mismatches := tensor_mismatches(tensors, segmenter.state_dict()):
        raise CheckpointError(f"{path}: does not fit the model in its configuration: {mismatches}")
    segmenter.load_state_dict(tensors)
    segmenter.training_record = dict(stored.training)
    return segmenter


def convert(source: Path, target: Path) -> None:
    """Convert a checkpoint to the format of the target's suffix, without optimiser state and unused tensors.

    Raises:
        CheckpointError: as for ``load_segmenter``, or the target's suffix is neither .ckpt nor .safetensors.
    """
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
