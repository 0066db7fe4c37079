"""The permutohedral lattice on the CPU: kernels compiled by numba, one thread each, without the GIL.

``permutohedral.py`` describes the lattice. A table holds ``LANES`` channels of every vertex, one row per vertex. numba does
not vectorise loops over such short rows, because rows may overlap for all it knows; here a row is one LLVM vector.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

# Half a cache line. Rows of 16 took as long, but their tables twice the memory.
LANES = 8
END = -1
FREE = -1

_VECTOR = ir.VectorType(ir.FloatType(), LANES)


class _Row(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Row{LANES}")


@register_model(_Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


_ROW = _Row()


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.bitcast(builder.gep(array.data, [args[1]]), _VECTOR.as_pointer())


@intrinsic
def _load(_typing: Any, array: Any, _start: Any) -> Any:
    """array[start : start + LANES] of a flat float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature, args))
        value.align = 4
        return value

    return _ROW(array, types.int64), generate


@intrinsic
def _store(_typing: Any, array: Any, _start: Any, _value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, signature, args)).align = 4
        return context.get_dummy_value()

    return types.void(array, types.int64, _ROW), generate


@intrinsic
def _zeros(_typing: Any) -> Any:
    return _ROW(), lambda _context, _builder, _signature, _args: ir.Constant(_VECTOR, None)


@intrinsic
def _plus(_typing: Any, _a: Any, _b: Any) -> Any:
    return _ROW(_ROW, _ROW), lambda _context, builder, _signature, args: builder.fadd(*args)


@intrinsic
def _times(_typing: Any, _row: Any, _factor: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(undefined, args[1], ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        return builder.fmul(args[0], builder.shuffle_vector(first, undefined, everywhere))

    return _ROW(_ROW, types.float32), generate


def _kernel(function: Callable[..., Any], **options: Any) -> Any:
    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # numba found no writable folder for its cache
        return njit(nogil=True, **options)(function)


def _reducing(function: Callable[..., Any]) -> Any:
    """A kernel whose sums and maxima over channels may be taken in any order."""
    return _kernel(function, fastmath={"reassoc", "nnan", "nsz"})


@_kernel
def elevate(features: Floats, scales: Floats, elevated: Floats, low: Floats, high: Floats) -> None:
    """Rotate P×d features into the zero-sum plane, P×(d+1), and find its bounds along each coordinate."""
    n_points, d = features.shape
    low[:] = np.inf
    high[:] = -np.inf
    for p in range(n_points):
        total = np.float32(0)
        for i in range(d, -1, -1):
            own = features[p, i - 1] * scales[i - 1] if i > 0 else np.float32(0)
            elevated[p, i] = total - np.float32(i) * own
            total += own
            low[i] = min(low[i], elevated[p, i])
            high[i] = max(high[i], elevated[p, i])


@_kernel
def enclosing_simplices(elevated: Floats, low: Longs, strides: Longs, codes: Longs, weights: Floats) -> None:
    """Vertex codes and barycentric weights of the simplex around each point, both P×(d+1)."""
    n_points, size = elevated.shape
    d = size - 1
    nearest = np.empty(size, np.float32)
    rank = np.empty(size, np.int64)
    at_rank = np.empty(size, np.int64)
    barycentric = np.empty(size + 1, np.float32)
    for p in range(n_points):
        _nearest_remainder_zero(elevated[p], nearest, rank)
        barycentric[:] = 0
        for i in range(size):
            at_rank[rank[i]] = i
            ascent = (elevated[p, i] - nearest[i]) / np.float32(size)
            barycentric[d - rank[i]] += ascent
            barycentric[size - rank[i]] -= ascent
        barycentric[0] += np.float32(1) + barycentric[size]

        code, one_up = np.int64(0), np.int64(0)
        for i in range(d):
            code += (np.int64(nearest[i]) - low[i]) * strides[i]
            one_up += strides[i]
        for remainder in range(size):
            codes[p, remainder] = code
            weights[p, remainder] = barycentric[remainder]
            code += one_up
            i = at_rank[d - remainder]
            if i < d:
                code -= size * strides[i]


@_kernel
def _nearest_remainder_zero(point: Floats, nearest: Floats, rank: Longs) -> None:
    """The lattice point of remainder 0 whose simplices surround ``point``, and the residuals' descending ranks."""
    size = len(point)
    total = np.float32(0)
    for i in range(size):
        above = np.float32(math.ceil(point[i] / np.float32(size))) * np.float32(size)
        below = np.float32(math.floor(point[i] / np.float32(size))) * np.float32(size)
        nearest[i] = above if above - point[i] < point[i] - below else below
        total += nearest[i]
    # Rounding can leave the plane of zero sum: move the coordinates with the largest rounding error back onto it.
    rank[:] = np.int64(round(total / np.float32(size)))
    for i in range(size):
        for j in range(i + 1, size):
            if point[i] - nearest[i] < point[j] - nearest[j]:
                rank[i] += 1
            else:
                rank[j] += 1
    for i in range(size):
        if rank[i] < 0:
            rank[i] += size
            nearest[i] += np.float32(size)
        elif rank[i] >= size:
            rank[i] -= size
            nearest[i] -= np.float32(size)


@_kernel
def number_vertices(codes: Longs, slots: Longs, numbers: Ints, vertex_of: Ints, vertices: Longs) -> int:
    """Number the distinct codes by first appearance, with a hash table of FREE ``slots``; their count is returned."""
    n_vertices = 0
    last = np.uint64(len(slots) - 1)
    for p in range(codes.shape[0]):
        for corner in range(codes.shape[1]):
            code = codes[p, corner]
            slot = ((np.uint64(code) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & last
            while slots[slot] not in (FREE, code):
                slot = (slot + np.uint64(1)) & last
            if slots[slot] == FREE:
                slots[slot] = vertices[n_vertices] = code
                numbers[slot] = n_vertices
                n_vertices += 1
            vertex_of[p, corner] = numbers[slot]
    return n_vertices


@_kernel
def link_chains(vertices: Longs, step: int, up: Ints, chains: Ints) -> int:
    """Runs of two or more vertices whose sorted codes differ by ``step`` > 0, each followed by END; the used length."""
    n_vertices = len(vertices)
    has_lower = np.zeros(n_vertices, np.bool_)
    u = 0
    for v in range(n_vertices):
        while u < n_vertices and vertices[u] < vertices[v] + step:
            u += 1
        up[v] = END
        if u < n_vertices and vertices[u] == vertices[v] + step:
            up[v] = u
            has_lower[u] = True
    length = 0
    for v in range(n_vertices):
        if has_lower[v] or up[v] == END:
            continue
        u = v
        while u != END:
            chains[length] = u
            length += 1
            u = up[u]
        chains[length] = END
        length += 1
    return length


@_kernel
def splat(values: Floats, start: int, vertex_of: Ints, weights: Floats, table: Floats) -> None:
    """Overwrite the table with the sums of weight times channels start … start + LANES of the points."""
    n_channels = values.shape[1]
    flat, rows = values.reshape(-1), table.reshape(-1)
    rows[:] = 0
    for p in range(len(vertex_of)):
        value = _load(flat, p * n_channels + start)
        for corner in range(vertex_of.shape[1]):
            row = np.int64(vertex_of[p, corner]) * LANES
            _store(rows, row, _plus(_load(rows, row), _times(value, weights[p, corner])))


@_kernel
def blur(table: Floats, chains: Ints) -> None:
    """The kernel [1/2, 1, 1/2] along one axis, in place; a vertex in no chain keeps its row."""
    rows = table.reshape(-1)
    below = _zeros()
    for k in range(len(chains) - 1):
        if chains[k] == END:
            below = _zeros()
            continue
        row = np.int64(chains[k]) * LANES
        here, around = _load(rows, row), below
        if chains[k + 1] != END:
            around = _plus(below, _load(rows, np.int64(chains[k + 1]) * LANES))
        _store(rows, row, _plus(here, _times(around, np.float32(0.5))))
        below = here


@_kernel
def add_slice(
    table: Floats, vertex_of: Ints, weights: Floats, factor: float, base: Floats, out: Floats, start: int
) -> None:
    """Channels start … start + LANES: out = base + factor times the weighted sum of each point's vertices."""
    n_channels = out.shape[1]
    rows, before, after = table.reshape(-1), base.reshape(-1), out.reshape(-1)
    for p in range(len(vertex_of)):
        value = _load(before, p * n_channels + start)
        for corner in range(vertex_of.shape[1]):
            row = _load(rows, np.int64(vertex_of[p, corner]) * LANES)
            value = _plus(value, _times(row, factor * weights[p, corner]))
        _store(after, p * n_channels + start, value)


@_reducing
def subtract_maxima(logits: Floats, edges: Longs) -> None:
    """Subtract each map's largest value from channels edges[k] … edges[k + 1]; later channels become 0."""
    for p in range(len(logits)):
        for k in range(len(edges) - 1):
            largest = logits[p, edges[k]]
            for c in range(edges[k] + 1, edges[k + 1]):
                largest = max(largest, logits[p, c])
            for c in range(edges[k], edges[k + 1]):
                logits[p, c] -= largest
        logits[p, edges[-1] :] = 0


@_reducing
def divide_by_sums(values: Floats, edges: Longs) -> None:
    """Divide channels edges[k] … edges[k + 1] by their sum."""
    for p in range(len(values)):
        for k in range(len(edges) - 1):
            total = np.float32(0)
            for c in range(edges[k], edges[k + 1]):
                total += values[p, c]
            factor = np.float32(1) / total
            for c in range(edges[k], edges[k + 1]):
                values[p, c] *= factor
