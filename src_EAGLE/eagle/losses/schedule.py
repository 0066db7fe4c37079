"""λ, the weight of the object-centric loss, as a function of the training step (method §8)."""

from typing import Any


def lambda_at(cfg: Any, step: int) -> float:
    """λ in [0, momentum_limit] after ``step`` optimiser steps, each on one batch.

    Args:
        cfg: has momentum_limit, step_schedulers and lambda_schedule: "released" switches from 0 to momentum_limit
            after step ``step_schedulers``, "paper" ramps up linearly until then.
        step: steps done so far.
    """
    limit = float(cfg.momentum_limit)
    if cfg.lambda_schedule == "released":
        return limit if step > cfg.step_schedulers else 0.0
    return limit * min(1.0, step / cfg.step_schedulers) if cfg.step_schedulers else limit
