"""Devices and processes: Lightning's device arguments, and collectives."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch import distributed as dist
from torch.distributed.nn import functional as differentiable

from eagle.errors import ConfigError, one_line

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


def machine_arguments(cfg: Any) -> dict[str, Any]:
    """Return the device and precision arguments of Lightning's Trainer or Fabric for a validated MachineConfig."""
    arguments = {name: cfg[name] for name in ("accelerator", "devices", "num_nodes", "strategy")}
    return arguments | {"precision": chosen_precision(cfg)}


def chosen_precision(cfg: Any) -> str:
    """The key ``precision``, with auto decided; warns of bfloat16 on a device that has to emulate it, which is slow."""
    native = computes_bfloat16(cfg.accelerator)
    if cfg.precision == "auto":
        return "bf16-mixed" if native else "32-true"
    if cfg.precision == "bf16-mixed" and not native:
        rank_zero_only(logger.warning)(
            "precision: bf16-mixed on a device without bfloat16 instructions may be several times slower than 32-true"
        )
    return str(cfg.precision)


def computes_bfloat16(accelerator: str) -> bool:
    """Whether a device has instructions for bfloat16; auto is a CUDA GPU if there is one."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return accelerator in ("auto", "cpu") and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def named_devices(cfg: Any) -> Iterator[None]:
    """Turn what Lightning raises for devices that this machine lacks into a ConfigError that names the keys."""
    try:
        yield
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        keys = " ".join(f"{name}={cfg[name]}" for name in ("accelerator", "devices") if name in cfg)
        raise ConfigError(f"{keys}: {one_line(error)}") from error


def set_float32_precision(matmul_precision: str) -> None:
    """Apply ``matmul_precision`` to this process's matrix products, and TF32 to convolutions unless it is "highest"."""
    torch.set_float32_matmul_precision(matmul_precision)
    torch.backends.cudnn.allow_tf32 = matmul_precision != "highest"  # torch's own default is True


def device_rows(rows: Sequence[int], device: torch.device) -> Tensor:
    """Row numbers as an int64 tensor on the device, without synchronising with it."""
    return torch.tensor(list(rows), dtype=torch.long).to(device, non_blocking=True)


def world_size() -> int:
    """Return the number of processes of a distributed run; 1 outside one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_gather_rows(local: Tensor) -> Tensor:
    """Concatenate the tensors of all processes along dim 0, in rank order; all must have the same shape.

    The backward pass sums each row's gradient over all processes and returns it to the process that owns the row.
    """
    if world_size() == 1:
        return local
    if local.requires_grad:
        parts = differentiable.all_gather(local.contiguous())
        for part in parts:
            # The backward pass sends raw memory: a non-contiguous gradient would arrive scrambled.
            part.register_hook(Tensor.contiguous)
        return torch.cat(parts)
    received = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(received, local.contiguous())
    return torch.cat(received)


def from_rank_zero(local: Tensor) -> Tensor:
    """Broadcast rank zero's values to all processes, in place."""
    if world_size() > 1:
        dist.broadcast(local, src=0)
    return local


def all_gather_objects(local: list[Item]) -> list[Item]:
    """Concatenate the lists of all processes in rank order."""
    if world_size() == 1:
        return local
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, local)
    return [item for part in parts for item in part]


def all_reduce_sum(local: Tensor) -> Tensor:
    """Sum a tensor over all processes, without gradient."""
    total = local.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total
