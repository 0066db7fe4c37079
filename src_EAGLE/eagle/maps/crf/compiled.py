"""Dense CRF compiled by numba: the permutohedral lattice and the mean-field iteration on it."""

import math
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eagle.maps.crf import lattice_kernels as kernels
from eagle.maps.crf.lattice_kernels import LANES, Floats, Ints, Longs
from eagle.maps.crf.reference import BILATERAL_COMPAT, GAUSSIAN_COMPAT, ITERATIONS

_POINTS_PER_TASK = 1 << 12
# Half of a small second-level cache.
_VERTICES_PER_SECTION = 1 << 13


class Lattice:
    """The Gaussian kernel matrix K[p, q] = exp(-|f_p - f_q|² / 2), as a linear map on blocks of LANES channels.

    Args:
        features: P×d positions in units of the kernel's standard deviation; the lattice is built in as many threads as
            torch has.
        normalise: use D^-1/2 K D^-1/2, where D is the diagonal matrix of row sums of K.

    Attributes:
        n_vertices: vertices around the points.
        chains: runs of neighbours along each axis, in the order of the blurs.

    Raises:
        ValueError: the features span more lattice cells than int64 can number.
    """

    def __init__(self, features: Tensor, normalise: bool = False) -> None:
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            codes, self._weights, steps = _enclosing_simplices(features.numpy(), threads)
            self._vertex_of, vertices = _numbered(codes)
            self.n_vertices = len(vertices)
            self.chains = _chains(vertices, steps, threads)
        # Divide by the blurs' weight from a vertex to itself, so that the kernel is 1 at its centre.
        self._gain = 1 / (1 + 2.0 ** -features.shape[1])
        if normalise:
            ones = np.ones((len(features), LANES), np.float32)
            self._weights *= 1 / np.sqrt(self.filter(ones)[:, :1] + np.float32(1e-20))

    def filter(self, block: Floats) -> Floats:
        """Filter each channel of P×LANES: row p of the result is Σ_q K[p, q] · block[q]."""
        table, out = self.new_table(), np.zeros_like(block)
        self.spread(block, table)
        self.add_slice(table, 1, out, out)
        return out

    def new_table(self) -> Floats:
        """An uninitialised row of LANES channels for each vertex, and two more for the blur."""
        # torch's arrays start with a cache line, numpy's do not.
        table: Floats = torch.empty(self.n_vertices + 2, LANES).numpy()
        return table

    def spread(self, block: Floats, table: Floats) -> None:
        """Splat a P×LANES block over the vertices, and blur them."""
        kernels.splat(block, self._vertex_of, self._weights, table)
        kernels.blur(table, self.chains)

    def add_slice(self, table: Floats, factor: float, base: Floats, out: Floats) -> None:
        """P×LANES out = base + factor · slice of the table."""
        kernels.add_slice(table, self._vertex_of, self._weights, np.float32(factor * self._gain), base, out)


def _enclosing_simplices(features: Floats, threads: Executor) -> tuple[Longs, Floats, list[int]]:
    """Codes and weights of each point's vertices, P×(d+1), and the codes' difference along each of the d + 1 axes.

    Sorted codes keep neighbours along the last axes close to each other, so that few of them fall out of the cache.
    """
    n_points, d = features.shape
    size = d + 1
    deviation = float(np.float32(math.sqrt(2 / 3) * size))
    scales = np.array([deviation / math.sqrt((i + 1) * (i + 2)) for i in range(d)], np.float32)
    elevated, low, high = (np.empty(shape, np.float32) for shape in ((n_points, size), size, size))
    kernels.elevate(features, scales, elevated, low, high)
    # A vertex is less than one step away from its point, its neighbour less than two; as much again for rounding.
    lowest = np.floor((low[:d] - high[d]) / size).astype(np.int64) - 4
    highest = np.ceil((high[:d] - low[d]) / size).astype(np.int64) + 4
    cells = [int(n) + 1 for n in highest - lowest]
    if math.prod(cells) >= 2**63:
        raise ValueError("the features span too many lattice cells to number; their kernel is too narrow for them")
    steps = [math.prod(cells[i + 1 :]) for i in range(d)]
    steps.append(-sum(steps))

    codes, weights = np.empty((n_points, size), np.int64), np.empty((n_points, size), np.float32)

    def part(first: int) -> None:
        rows = slice(first, first + _POINTS_PER_TASK)
        kernels.enclosing_simplices(elevated[rows], lowest, np.array(steps), codes[rows], weights[rows])

    list(threads.map(part, range(0, n_points, _POINTS_PER_TASK)))
    return codes, weights, [abs(step) for step in steps]


def _numbered(codes: Longs) -> tuple[Ints, Longs]:
    """The place of each code among the sorted distinct codes, and those."""
    n_slots = 1 << (3 * codes.size // 2).bit_length()
    slots, numbers = np.full(n_slots, kernels.FREE), np.empty(n_slots, np.int32)
    vertex_of, found = np.empty(codes.shape, np.int32), np.empty(codes.size, np.int64)
    vertices: Longs = found[: kernels.number_vertices(codes, slots, numbers, vertex_of, found)]
    order = np.argsort(vertices)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[vertex_of], vertices[order]


def _chains(vertices: Longs, steps: list[int], threads: Executor) -> Ints:
    """The runs of neighbours along each axis.

    A neighbour along any axis but the first and the last has the same first coordinate. Sections of vertices that share
    it are blurred along all these axes before the next section, while they are in the cache.
    """
    n_vertices = len(vertices)
    starts = np.flatnonzero(np.diff(vertices // steps[0], prepend=-1))
    _, chosen = np.unique(starts // _VERTICES_PER_SECTION, return_index=True)
    sections = pairwise([*starts[chosen].tolist(), n_vertices])
    inner = [(*section, step) for section in sections for step in steps[1:-1]]

    def linked(part: tuple[int, int, int]) -> Ints:
        first, last, step = part
        n = last - first
        up, chains = np.empty(n, np.int32), np.empty(3 * n // 2 + 1, np.int32)
        return chains[: kernels.link_chains(vertices[first:last], step, first, n_vertices, up, chains)]

    chains = threads.map(linked, [(0, n_vertices, steps[0]), *inner, (0, n_vertices, steps[-1])])
    return np.concatenate([*chains, np.full(kernels.AHEAD, n_vertices, np.int32)])


def mean_field(log_unaries: Sequence[Tensor], gaussian: Lattice, bilateral: Lattice) -> list[Tensor]:
    """Approximate marginals of the CRF, from its negative unary energies, of the maps of one image, C×H×W each."""
    unaries = [_blocks(log_unary) for log_unary in log_unaries]
    marginals = [unary.clone() for unary in unaries]
    values = [value.numpy() for value in marginals]
    blocks = [
        pair for unary, value in zip(unaries, values, strict=True) for pair in zip(unary.numpy(), value, strict=True)
    ]
    tables: SimpleQueue[tuple[Floats, Floats]] = SimpleQueue()
    for _ in range(min(torch.get_num_threads(), len(blocks))):
        tables.put((gaussian.new_table(), bilateral.new_table()))

    def add_messages(block: tuple[Floats, Floats]) -> None:
        unary, value = block
        smoothness, appearance = free = tables.get()
        gaussian.spread(value, smoothness)
        bilateral.spread(value, appearance)
        gaussian.add_slice(smoothness, GAUSSIAN_COMPAT, unary, value)
        bilateral.add_slice(appearance, BILATERAL_COMPAT, value, value)
        tables.put(free)

    def softmax(first: int) -> None:
        for value in values:
            kernels.softmax(value[:, first : first + _POINTS_PER_TASK])

    tasks = range(0, unaries[0].shape[1], _POINTS_PER_TASK)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for _ in range(ITERATIONS):
            list(threads.map(softmax, tasks))
            list(threads.map(add_messages, blocks))
        list(threads.map(softmax, tasks))
    # The inverse of _blocks.
    refined = (value.transpose(1, 2).flatten(0, 1) for value in marginals)
    return [part[: len(unary)].view_as(unary) for part, unary in zip(refined, log_unaries, strict=True)]


def _blocks(channels: Tensor) -> Tensor:
    """C×H×W energies as n×P×LANES blocks, padded with channels of probability 0."""
    padded = F.pad(channels.flatten(1), (0, 0, 0, -len(channels) % LANES), value=-torch.inf)
    return padded.unflatten(0, (-1, LANES)).transpose(1, 2).contiguous()
