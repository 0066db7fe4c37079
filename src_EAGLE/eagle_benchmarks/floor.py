"""Lower bounds: FLOPs of a step by the measured rate of a matrix product, bytes of the CRF by that of a copy."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from eagle.maps.crf.dense_crf import _bgr_bytes
from eagle.maps.crf.pool import ITERATIONS
from eagle.maps.probe_maps import MapSettings
from eagle_benchmarks.case import Case
from eagle_benchmarks.measure import seconds

COPIED_FLOATS = 64 * 2**20
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


def crf_bytes(case: Case) -> int:
    """Bytes that the CRF of both probes' maps on the CPU must read and write if no table stays in a cache."""
    from eagle.maps.crf.compiled import CompiledCrf
    from eagle.maps.crf.lattice_kernels import LANES

    bgr = _bgr_bytes(case.batch["img"])
    n_images, height, width, _ = bgr.shape
    with CompiledCrf(height, width) as crf:
        lattices = [lattice for image in bgr for lattice in (crf.gaussian, crf.bilateral(image))]
    row = LANES * 4
    # A splat writes each vertex, a slice reads it; a blur reads and writes the vertices that have a neighbour.
    blurred = sum(int((chain < lattice.n_vertices).sum()) for lattice in lattices for chain in lattice.chains)
    filters = 2 * row * (sum(lattice.n_vertices for lattice in lattices) + blurred)
    # Probabilities and energies are read for the messages, the sums written, read by the softmax and written again.
    points = 5 * row * n_images * height * width
    n_blocks = sum(math.ceil(n / LANES) for n in case.segmenter.probe_maps(MapSettings()).n_clusters.values())
    return ITERATIONS * n_blocks * (filters + points)


def copy_rate() -> float:
    """Bytes per second, read and written, of the fastest of ``TRIALS`` copies on the CPU."""
    source = torch.ones(COPIED_FLOATS)
    target = torch.zeros_like(source)
    fastest = min(seconds(lambda: target.copy_(source), torch.device("cpu")) for _ in range(TRIALS))
    return 2 * source.nbytes / fastest


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, **_kwargs: Any) -> int:
    batch, heads, n_queries, channels = query
    return 2 * batch * heads * n_queries * key[2] * (channels + value[3])
