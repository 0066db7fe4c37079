"""Compute the losses of a saved batch again (see ``eagle.training.callbacks.nonfinite``)."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric

from eagle.checkpoints.loading import load_segmenter
from eagle.checkpoints.safe_pickles import read_pickle
from eagle.errors import CheckpointError
from eagle.training.callbacks.nonfinite import GRADIENT, gradient_norm

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """Every loss term and the gradient's norm: as the run recorded them, and computed again."""

    recorded: dict[str, float]
    again: dict[str, float]


def replay(path: Path) -> Replay:
    """Compute a saved batch's losses again, from the weights and random state of that moment.

    Computes on the recorded kind of device where there is one, else, with a warning, on the CPU.

    Args:
        path: a file that NonFiniteStop wrote.

    Raises:
        CheckpointError: the file is missing, unreadable or another one.
    """
    content = read_pickle(path)
    if not {"terms", "batch", "step", "random_state", "precision", "world_size"} <= content.keys():
        raise CheckpointError(f"{path}: holds no batch; name a nan_batch.pt that a stopped run left in its folder")
    segmenter = load_segmenter(path).train()
    random_state = content["random_state"]
    on_gpu = "cuda" in random_state and torch.cuda.is_available()
    if "cuda" in random_state and not on_gpu:
        logger.warning("recorded on a GPU and replayed on the CPU: dropout and sampled points are other ones")
    if content["world_size"] > 1 and segmenter.cfg.gather_batch:
        logger.warning("gather_batch: this is one of %d processes' share of the batch", content["world_size"])
    fabric = Fabric(accelerator="cuda" if on_gpu else "cpu", devices=1, precision=content["precision"])
    segmenter.to(fabric.device)
    batch = fabric.to_device(dict(content["batch"]))
    torch.set_rng_state(random_state["cpu"].cpu())
    if on_gpu:
        torch.cuda.set_rng_state(random_state["cuda"].cpu(), fabric.device)
    with fabric.autocast():
        terms = segmenter.losses(batch, content["step"])
    terms["loss/total"].backward()
    again = {name: float(value.detach()) for name, value in terms.items()}
    return Replay(dict(content["terms"]), again | {GRADIENT: float(gradient_norm(segmenter))})
