"""How many processes compute where: the Trainer's arguments, and what a process has to know about the others."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch import distributed as dist
from torch.distributed.nn import functional as differentiable

from eagle.errors import ConfigError, EagleError

Item = TypeVar("Item")


def machine_arguments(cfg: Any) -> dict[str, Any]:
    """The Trainer's arguments that say where and in which precision to compute.

    Samples are shared out by ``eagle.data.loading.sharding``; processes wait ``rank_timeout`` seconds for one another,
    so that a dead one ends a run rather than stall it.

    Args:
        cfg: a validated MachineConfig.

    Raises:
        ConfigError: this machine does not have the devices asked for, or cannot compute so.
    """
    arguments = {name: cfg[name] for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")}
    arguments["use_distributed_sampler"] = False
    if cfg.strategy in ("auto", "ddp"):
        # Only Lightning knows which strategy and how many processes its arguments mean here.
        try:
            chosen = pl.Trainer(**arguments, logger=False, enable_checkpointing=False, enable_model_summary=False)
        except MisconfigurationException as error:
            raise ConfigError(f"accelerator={cfg.accelerator} devices={cfg.devices}: {error}") from error
        if isinstance(chosen.strategy, DDPStrategy) and chosen.world_size > 1:
            arguments["strategy"] = DDPStrategy(timeout=timedelta(seconds=cfg.rank_timeout))
    return arguments


def world_size() -> int:
    """Number of processes that compute together; 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_gather_rows(local: Tensor) -> Tensor:
    """The rows of every process in rank order, joined along dim 0.

    A gradient flows back to the process that the row came from, summed over all processes; all must bring the same
    shape.
    """
    if world_size() == 1:
        return local
    if local.requires_grad:
        parts = differentiable.all_gather(local.contiguous())
        for part in parts:
            # Backward, all_gather sends memory as it lies: a transposed gradient would arrive scrambled.
            part.register_hook(Tensor.contiguous)
        return torch.cat(parts)
    received = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(received, local.contiguous())
    return torch.cat(received)


def from_rank_zero(local: Tensor) -> Tensor:
    """Rank zero's values, in every process."""
    if world_size() > 1:
        dist.broadcast(local, src=0)
    return local


def joined_processes(cfg: Any) -> None:
    """Connect the processes that torchrun or a cluster started for a run, so that they can agree before it begins.

    Lightning would connect them when the run begins. Processes that Lightning starts itself are not there yet: rank
    zero starts them then.

    Args:
        cfg: a validated MachineConfig.
    """
    strategy = pl.Trainer(
        **machine_arguments(cfg), logger=False, enable_checkpointing=False, enable_model_summary=False
    ).strategy
    if isinstance(strategy, DDPStrategy) and not isinstance(strategy.cluster_environment, LightningEnvironment):
        strategy.setup_environment()


def started_by_rank_zero() -> bool:
    """Whether this process was started by rank zero when that had come to its run, and is not connected to it yet."""
    return world_size() == 1 and rank_zero_only.rank != 0  # type: ignore[attr-defined]


def computed_by_rank_zero(compute: Callable[[], Item]) -> Item:
    """What ``compute`` gives in rank zero, in every process; an EagleError that it raises there is raised in all."""
    if world_size() == 1:
        return compute()
    outcome: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            outcome = [compute()]
        except EagleError as error:
            outcome = [error]
    dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], EagleError):
        raise outcome[0]
    return cast(Item, outcome[0])


def all_gather_objects(local: list[Item]) -> list[Item]:
    """The items of all processes in rank order."""
    if world_size() == 1:
        return local
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, local)
    return [item for part in parts for item in part]


def all_reduce_sum(local: Tensor) -> Tensor:
    """Sum over all processes, without gradient."""
    total = local.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def all_reduce_mean(local: Tensor) -> Tensor:
    """Mean over all processes, float32, without gradient."""
    mean = local.detach().float()
    if world_size() > 1:
        dist.all_reduce(mean)
        mean /= world_size()
    return mean
