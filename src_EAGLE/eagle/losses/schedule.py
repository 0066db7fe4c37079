"""λ, the share of the object-centric loss, as a function of the batches done (method §8)."""

from typing import Any


def lambda_at(cfg: Any, step: int) -> float:
    """λ after ``step`` batches.

    Args:
        cfg: has lambda_schedule ("released": a switch after batch ``step_schedulers``; "paper": a linear ramp up to
            it), step_schedulers and momentum_limit.
        step: batches done so far.

    Returns:
        A number in [0, momentum_limit].
    """
    if cfg.lambda_schedule == "released":
        return float(cfg.momentum_limit) if step > cfg.step_schedulers else 0.0
    if cfg.step_schedulers == 0:
        return float(cfg.momentum_limit)
    return float(cfg.momentum_limit) * min(1.0, step / cfg.step_schedulers)
