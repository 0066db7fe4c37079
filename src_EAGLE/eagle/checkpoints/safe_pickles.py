"""Read untrusted torch.save files: only tensors, plain containers and OmegaConf's are allowed, and no code is run."""

import pickle
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, base, nodes

from eagle.checkpoints.paths import require_checkpoint
from eagle.errors import CheckpointError
from eagle.files import looks_like_html

# The classes in a DictConfig's pickle, for OmegaConf 2.0 to 2.3.
_OMEGACONF = [
    DictConfig, ListConfig, base.Metadata, base.ContainerMetadata, nodes.AnyNode, nodes.IntegerNode,
    nodes.FloatNode, nodes.StringNode, nodes.BooleanNode, Any, defaultdict, dict, list, int, float, str, bool,
]  # fmt: skip

# Lightning before 1.5 pickles callback classes, as keys of their states, and its own dict class for hyper-parameters.
_LIGHTNING_CALLBACKS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
)
_LIGHTNING_DICT = "pytorch_lightning.utilities.parsing.AttributeDict"


class _StandIn:
    """Replaces a Lightning class that a file refers to by name only."""


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
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path}: not a readable checkpoint ({_reason(error)})") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def _allowed() -> list[Any]:
    stand_ins = [(type(name.rpartition(".")[2], (_StandIn,), {}), name) for name in _LIGHTNING_CALLBACKS]
    return [*_OMEGACONF, *stand_ins, (dict, _LIGHTNING_DICT)]


def _reason(error: Exception) -> str:
    """One line: the class or function that was refused, or what failed."""
    if isinstance(error, pickle.UnpicklingError):
        refused = [line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line]
        if refused:
            return " ".join(refused[0].split())[:160]
    text = " ".join(str(error).split())[:120]
    return "empty, truncated or damaged" + (f": {text}" if text else "")
