"""The least time that a step can take: the FLOPs that it must do over the machine's measured matmul rate."""

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
        flops: of one step.
        rate: FLOP/s.
    """

    flops: int
    rate: float

    @property
    def seconds(self) -> float:
        """Below this no step can come."""
        return self.flops / self.rate


def step_floor(case: Case, dtype: torch.dtype = torch.float32) -> Floor:
    """The floor of a case's step without a cache: x and the blurred images pass the backbone, both views the head."""
    segmenter = case.segmenter
    # torch's counter has no entry for the CPU's fused attention, which does what CUDA's does.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _attention_flops}) as counter:
        for keys in segmenter._frozen_keys(case.batch):
            segmenter.net(keys).sum().backward()
    segmenter.zero_grad()
    return Floor(counter.get_total_flops(), matmul_rate(case.device, dtype))


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of five products of square matrices."""
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(TRIALS))


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, **_kwargs: Any) -> int:
    batch, heads, n_queries, channels = query
    return 2 * batch * heads * n_queries * key[2] * (channels + value[3])
