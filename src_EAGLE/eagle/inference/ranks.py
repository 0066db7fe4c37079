"""Start the processes of a command that shares its files among devices."""

import os
from datetime import timedelta
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from eagle.distributed import set_float32_precision
from eagle.errors import ConfigError


def launched_fabric(cfg: Any) -> Fabric:
    """Start or join the processes of all devices; each returns with a Fabric that knows its rank.

    A process waits ``rank_timeout`` seconds for the others.

    Args:
        cfg: a validated MachineConfig.

    Raises:
        ConfigError: this machine lacks the requested devices, or torchrun started more processes than ``devices``.
    """
    set_float32_precision(cfg.matmul_precision)
    arguments = {name: cfg[name] for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")}
    try:
        fabric = Fabric(**arguments)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"accelerator={cfg.accelerator} devices={cfg.devices}: {error}") from error
    if isinstance(fabric.strategy, DDPStrategy) and cfg.strategy in ("auto", "ddp"):
        arguments["strategy"] = DDPStrategy(timeout=timedelta(seconds=cfg.rank_timeout))
        fabric = Fabric(**arguments)
    if TorchElasticEnvironment.detect() and fabric.world_size < int(os.environ["WORLD_SIZE"]):
        raise ConfigError(
            f"devices={cfg.devices}: torchrun started {os.environ['WORLD_SIZE']} processes, which would each segment "
            "all files; set devices to the processes of one machine, and num_nodes"
        )
    fabric.launch()
    return fabric
