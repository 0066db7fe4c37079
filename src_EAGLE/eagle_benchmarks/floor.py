"""Lower bound on the time of a step: its necessary FLOPs divided by the machine's measured matmul rate."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from eagle_benchmarks.case import Case
from eagle_benchmarks.measure import seconds

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
TRIALS = 5


@dataclass(frozen=True)
class Floor:
    """FLOPs of backbone and head, forward and backward, and the rate of one large matrix product.

    Attributes:
        flops: FLOPs of one step.
        rate: rate in FLOP/s.
    """

    flops: int
    rate: float

    @property
    def seconds(self) -> float:
        """The shortest possible time of a step."""
        return self.flops / self.rate


def step_floor(case: Case, dtype: torch.dtype = torch.float32) -> Floor:
    """Floor of a case's step without cache: backbone on x and the blurred images, head on both views."""
    segmenter = case.segmenter
    # torch's counter lacks the CPU's fused attention, which does the same work as CUDA's.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _attention_flops}) as counter:
        for keys in segmenter._frozen_keys(case.batch):
            segmenter.net(keys).sum().backward()
    segmenter.zero_grad()
    return Floor(counter.get_total_flops(), matmul_rate(case.device, dtype))


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of ``TRIALS`` products of square matrices."""
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(TRIALS))


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, **_kwargs: Any) -> int:
    batch, heads, n_queries, channels = query
    return 2 * batch * heads * n_queries * key[2] * (channels + value[3])
