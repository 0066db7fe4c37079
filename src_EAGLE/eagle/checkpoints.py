"""Read a trained segmenter from a checkpoint, published or our own, without running code in it."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from eagle.errors import CheckpointError
from eagle.segmenter import PUBLISHED_LEFTOVERS, LitUnsupervisedSegmenter


def load_segmenter(path: str | Path, map_location: Any = "cpu") -> LitUnsupervisedSegmenter:
    """The segmenter of a Lightning checkpoint, in eval mode; its backbone comes from the checkpoint too.

    Args:
        path: a .ckpt file with ``state_dict`` and ``hyper_parameters`` {``n_classes``, ``cfg``}.
        map_location: device of the result.

    Raises:
        CheckpointError: the file is missing, unreadable or not such a checkpoint, or tensors are missing, unknown or
            of another shape; all are named.
    """
    path = Path(path)
    checkpoint = _read(path)
    state, hyper_parameters = checkpoint.get("state_dict"), checkpoint.get("hyper_parameters")
    if not isinstance(state, Mapping) or not isinstance(hyper_parameters, Mapping):
        raise CheckpointError(f"{path}: not a segmenter's checkpoint: it lacks state_dict or hyper_parameters")
    if not {"n_classes", "cfg"} <= hyper_parameters.keys():
        raise CheckpointError(f"{path}: its hyper_parameters lack n_classes or cfg")
    cfg = hyper_parameters["cfg"]
    plain = OmegaConf.to_container(cfg) if isinstance(cfg, (DictConfig, ListConfig)) else cfg
    segmenter = LitUnsupervisedSegmenter(int(hyper_parameters["n_classes"]), plain, pretrained=False)
    _check_tensors(path, state, segmenter.state_dict())
    segmenter.load_state_dict(state)
    return segmenter.to(map_location).eval()


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        with torch.serialization.safe_globals(_published_globals()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), str(error))
        raise CheckpointError(f"{path}: not a readable checkpoint ({' '.join(reason.split())[:160]})") from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _published_globals() -> list[Any]:
    """What a published checkpoint's pickled DictConfig consists of; none of it runs code of the file."""
    from collections import defaultdict

    from omegaconf import base, nodes

    return [
        DictConfig, ListConfig, base.Metadata, base.ContainerMetadata, nodes.AnyNode, nodes.IntegerNode,
        nodes.FloatNode, nodes.StringNode, nodes.BooleanNode, Any, dict, list, int, float, str, bool, defaultdict,
    ]  # fmt: skip


def _check_tensors(path: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    given = {name for name in state if not name.startswith(PUBLISHED_LEFTOVERS)}
    problems = [f"lacks {name}" for name in sorted(wanted.keys() - given)]
    problems += [f"has an unknown {name}" for name in sorted(given - wanted.keys())]
    problems += [
        f"{name} is {tuple(state[name].shape)}, its configuration says {tuple(wanted[name].shape)}"
        for name in sorted(given & wanted.keys())
        if state[name].shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise CheckpointError(f"{path}: does not fit the model that its configuration describes: {shown}")
