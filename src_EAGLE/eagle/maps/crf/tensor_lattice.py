"""High-dimensional Gaussian filtering on the permutohedral lattice, in plain tensor operations.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (Eurographics 2010). Splat
spreads each point over the d + 1 vertices of its enclosing simplex, blur filters the vertices along each of the
lattice's d + 1 axes, and slice interpolates each point from its simplex. Only vertices of these simplices are stored.

Each step is a sparse matrix times a dense table with one row of channels per point or vertex. ``embedding_bag``
computes that product two to three times as fast on a CPU as torch's sparse CSR matrices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle.maps.crf.reference import BILATERAL_COMPAT, GAUSSIAN_COMPAT, ITERATIONS


class Lattice:
    """The Gaussian kernel matrix K[p, q] = exp(-|f_p - f_q|² / 2), as a linear map on P×C values.

    Args:
        features: P×d positions in units of the kernel's standard deviation; computed in float32 on their device.
        normalise: use D^-1/2 K D^-1/2, where D is the diagonal matrix of row sums of K (Krähenbühl and Koltun,
            "Parameter Learning and Convergent Inference for Dense Random Fields", ICML 2013).

    Raises:
        ValueError: the features span more lattice cells than int64 can number.
    """

    def __init__(self, features: Tensor, normalise: bool = False) -> None:
        keys, weights = _enclosing_simplices(features.float().T.contiguous())
        codes, steps = _encode(keys)
        ordered, order = codes.flatten().sort(stable=True)
        vertices, counts = torch.unique_consecutive(ordered, return_counts=True)
        self.n_points = features.shape[0]

        self._splat = _WeightedSums(order % self.n_points, _offsets(counts), weights.flatten()[order])
        self._blurs = [_blur(vertices, step) for step in steps]
        vertex_of = torch.empty_like(order)
        vertex_of[order] = torch.repeat_interleave(counts)
        corners = torch.full((self.n_points,), len(keys) + 1, device=features.device)
        # Divide by the blurs' weight from a vertex to itself, so that the kernel is 1 at its centre. The d + 1 axes sum
        # to zero: no step has weight 1; one step along every axis, all up or all down, has weight 2 · 2^-(d+1).
        self._slice = _WeightedSums(
            vertex_of.view_as(codes).T.flatten(), _offsets(corners), weights.T.flatten() / (1 + 2.0 ** -len(keys))
        )
        if normalise:
            scale = (self.filter(weights.new_ones(self.n_points, 1)) + 1e-20).rsqrt()
            self._splat = replace(self._splat, weights=self._splat.weights * scale[self._splat.indices, 0])
            self._slice = replace(self._slice, weights=(self._slice.weights.view(self.n_points, -1) * scale).flatten())

    def filter(self, values: Tensor) -> Tensor:
        """Filter each channel: row p of the result is Σ_q K[p, q] · values[q].

        Args:
            values: P×C float32, on the features' device.

        Returns:
            P×C float32.
        """
        for step in (self._splat, *self._blurs, self._slice):
            values = step(values)
        return values


def mean_field(log_unaries: Sequence[Tensor], gaussian: Lattice, bilateral: Lattice) -> list[Tensor]:
    """Approximate marginals of the CRF, from its negative unary energies, of the maps of one image, C×H×W each."""
    refined = []
    for log_unary in log_unaries:
        table = log_unary.flatten(1).T.contiguous()
        marginals = table.softmax(1)
        for _ in range(ITERATIONS):
            smoothness, appearance = gaussian.filter(marginals), bilateral.filter(marginals)
            marginals = (table + GAUSSIAN_COMPAT * smoothness + BILATERAL_COMPAT * appearance).softmax(1)
        refined.append(marginals.T.view_as(log_unary))
    return refined


@dataclass(frozen=True)
class _WeightedSums:
    """A sparse matrix in CSR form: row i of a product sums weights · table[indices] over offsets[i]:offsets[i + 1]."""

    indices: Tensor
    offsets: Tensor
    weights: Tensor

    def __call__(self, table: Tensor) -> Tensor:
        return F.embedding_bag(
            self.indices, table, self.offsets, mode="sum", per_sample_weights=self.weights, include_last_offset=True
        )


def _offsets(counts: Tensor) -> Tensor:
    return F.pad(counts.cumsum(0), (1, 0))


def _enclosing_simplices(features: Tensor) -> tuple[Tensor, Tensor]:
    """The d + 1 lattice vertices around each point and their barycentric weights.

    Args:
        features: d×P float32.

    Returns:
        Vertex coordinates, d×(d+1)×P int64, one vertex per remainder 0..d (the last of the d + 1 coordinates is
        omitted, as they sum to 0), and vertex weights, (d+1)×P float32, which sum to 1 per point.
    """
    d, n_points = features.shape
    elevated = _elevate(features)
    inverse = 1 / torch.tensor(d + 1.0)  # rounded, as pydensecrf rounds it
    below = (elevated * inverse).floor() * (d + 1)
    above = (elevated * inverse).ceil() * (d + 1)
    nearest = torch.where(above - elevated < elevated - below, above, below)

    # Rank the residuals in descending order; ties go to the earlier coordinate.
    residual = elevated - nearest
    rank = torch.stack(
        [(residual[:i] >= residual[i]).sum(0) + (residual[i + 1 :] > residual[i]).sum(0) for i in range(d + 1)]
    )
    # Rounding can leave the plane of zero sum: move the coordinates with the largest rounding error back onto it.
    rank += (nearest.sum(0) / (d + 1)).round().long()
    wrap = (rank < 0).long() - (rank > d).long()
    rank += wrap * (d + 1)
    nearest += wrap * (d + 1)

    ascent = (elevated - nearest) * inverse
    barycentric = torch.zeros(d + 2, n_points, device=features.device)
    barycentric.scatter_add_(0, d - rank, ascent)
    barycentric.scatter_add_(0, d + 1 - rank, -ascent)
    barycentric[0] += 1 + barycentric[d + 1]

    remainder = torch.arange(d + 1, device=features.device)[:, None]
    shift = remainder - (d + 1) * (rank[:d, None] > d - remainder)
    return nearest[:d, None].long() + shift, barycentric[: d + 1]


def _elevate(features: Tensor) -> Tensor:
    """Rotate d×P features into the zero-sum plane of R^(d+1), scaled so that the blur has unit variance."""
    d = features.shape[0]
    deviation = float(torch.tensor(math.sqrt(2 / 3) * (d + 1)))
    scales = [deviation / math.sqrt((i + 1) * (i + 2)) for i in range(d)]
    scaled = features * features.new_tensor(scales)[:, None]
    # Basis vector i is (1, …, 1, -i, 0, …, 0) with i ones, so coordinate i is a suffix sum minus i times its own value.
    # Not cumsum: it sums float32 in float64 on the CPU, unlike pydensecrf.
    suffix = torch.stack(list(accumulate(scaled.flip(0), initial=torch.zeros_like(scaled[0])))).flip(0)
    own = F.pad(scaled, (0, 0, 1, 0)) * torch.arange(d + 1, device=features.device)[:, None]
    return suffix - own


def _encode(keys: Tensor) -> tuple[Tensor, list[int]]:
    """Number the vertices in their bounding box, so that neighbours along an axis differ by a constant.

    Args:
        keys: vertex coordinates, d×(d+1)×P int64.

    Returns:
        Vertex numbers, (d+1)×P, and the constant for each of the d + 1 axes.
    """
    d = keys.shape[0]
    flat = keys.flatten(1)
    low = flat.amin(1) - 1
    sizes = (flat.amax(1) + d - low + 1).tolist()
    if math.prod(sizes) >= 2**63:
        raise ValueError("the features span too many lattice cells to number; their kernel is too narrow for them")
    strides = [math.prod(sizes[i + 1 :]) for i in range(d)]
    codes = sum((keys[i] - low[i]) * stride for i, stride in enumerate(strides))
    down_all = -sum(strides)
    steps = [down_all + (d + 1) * stride for stride in strides] + [down_all]
    return torch.as_tensor(codes), steps


def _blur(vertices: Tensor, step: int) -> _WeightedSums:
    """The kernel [1/2, 1, 1/2] along one axis, on sorted vertex numbers; missing vertices count as zero."""
    n_vertices = len(vertices)
    itself = torch.arange(n_vertices, device=vertices.device)
    position = torch.searchsorted(vertices, vertices + step).clamp_(max=n_vertices - 1)
    linked = (vertices[position] == vertices + step).nonzero().squeeze(1)

    columns = torch.stack([itself, torch.full_like(itself, -1), torch.full_like(itself, -1)], dim=1)
    columns[linked, 1] = position[linked]
    columns[position[linked], 2] = linked
    exists = columns >= 0
    entries = exists.flatten().nonzero().squeeze(1)
    weights = torch.tensor([1.0, 0.5, 0.5], device=vertices.device)[entries % 3]
    return _WeightedSums(columns.flatten()[entries], _offsets(exists.sum(1)), weights)
