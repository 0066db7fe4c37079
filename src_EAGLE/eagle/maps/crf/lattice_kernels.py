"""The permutohedral lattice on the CPU: kernels compiled by numba, one thread each, without the GIL.

``tensor_lattice.py`` describes the lattice. A table holds ``LANES`` channels of every vertex, one row per vertex. numba
does not vectorise loops over such short rows, because rows may overlap for all it knows; here a row is one LLVM vector.
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, njit
from numba.core import cgutils, types
from numba.core.datamodel import models
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

# Half a cache line. Rows of 16 took half as long again for 420,000 vertices, whose tables then outgrow the cache.
LANES = 8
# Rows of a table are read in an order that the processor cannot foresee: ask for them so many rows ahead. It halves the
# time of tables that outgrow the cache.
AHEAD = 128
FREE = -1
# The exponential of anything smaller, which is less than 2e-35, becomes 0.
_SMALLEST_EXPONENT = -80.0

_INT = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_intrinsic: Any = extending.intrinsic


class _Row(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Row{LANES}")


@extending.register_model(_Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


_ROW = _Row()


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.bitcast(builder.gep(array.data, [args[1]]), _VECTOR.as_pointer())


@_intrinsic
def _load(_typing: Any, array: Any, _start: Any) -> Any:
    """array[start : start + LANES] of a flat float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature, args))
        value.align = 4
        return value

    return _ROW(array, types.int64), generate


@_intrinsic
def _store(_typing: Any, array: Any, _start: Any, _value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, signature, args)).align = 4
        return context.get_dummy_value()

    return types.void(array, types.int64, _ROW), generate


@_intrinsic
def _prefetch(_typing: Any, array: Any, _start: Any) -> Any:
    """Ask for the row array[start : start + LANES] that is soon to be read or written."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = builder.bitcast(_pointer(context, builder, signature, args), _BYTES)
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _INT, _INT, _INT])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [row, _INT(0), _INT(3), _INT(1)])  # for reading, into all caches, of data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@_intrinsic
def _broadcast(_typing: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(undefined, args[0], _INT(0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT, LANES), None))

    return _ROW(types.float32), generate


def _lane_by_lane(instruction: Callable[..., Any]) -> Any:
    @_intrinsic
    def operation(_typing: Any, _a: Any, _b: Any) -> Any:
        return _ROW(_ROW, _ROW), lambda _context, builder, _signature, args: instruction(builder, *args)

    return operation


def _over_lanes(instruction: Callable[..., Any]) -> Any:
    @_intrinsic
    def reduction(_typing: Any, _row: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            lanes = [builder.extract_element(args[0], _INT(lane)) for lane in range(LANES)]
            return reduce(partial(instruction, builder), lanes)

        return types.float32(_ROW), generate

    return reduction


def _greater(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


_plus = _lane_by_lane(lambda builder, a, b: builder.fadd(a, b))
_times = _lane_by_lane(lambda builder, a, b: builder.fmul(a, b))
_maximum = _lane_by_lane(_greater)
_sum_of_lanes = _over_lanes(lambda builder, a, b: builder.fadd(a, b))
_largest_lane = _over_lanes(_greater)


@_intrinsic
def _exp(_typing: Any, _x: Any) -> Any:
    """exp(x) for x ≤ 0, to 2e-7: exp(x) = 2^n exp(r) with n = round(x / ln 2), and exp(r) as a polynomial."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        def constant(value: float) -> Any:
            return ir.Constant(_VECTOR, [ir.Constant(_VECTOR.element, float(np.float32(value)))] * LANES)

        def times_plus(a: Any, b: Any, c: Any) -> Any:
            return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

        x = args[0]
        # Adding this leaves n as the lowest bits of the sum.
        shifter = constant(1.5 * 2**23)
        sum_ = times_plus(x, constant(1 / math.log(2)), shifter)
        n = builder.fsub(sum_, shifter)
        # ln 2 in two parts, the first of few bits, so that n times it is exact.
        high = 355 / 512
        r = times_plus(n, constant(high - math.log(2)), times_plus(n, constant(-high), x))
        power = constant(1 / math.factorial(6))
        for degree in range(5, -1, -1):
            power = times_plus(power, r, constant(1 / math.factorial(degree)))
        integers = ir.VectorType(_INT, LANES)
        shift, one = (ir.Constant(integers, [_INT(value)] * LANES) for value in (23, 127 << 23))
        exponent = builder.add(builder.shl(builder.bitcast(sum_, integers), shift), one)
        result = builder.fmul(power, builder.bitcast(exponent, _VECTOR))
        return builder.select(builder.fcmp_ordered("<", x, constant(_SMALLEST_EXPONENT)), constant(0), result)

    return _ROW(_ROW), generate


def _kernel(function: Callable[..., Any]) -> Any:
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no writable folder for its cache
        return njit(nogil=True)(function)


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
def enclosing_simplices(elevated: Floats, low: Longs, steps: Longs, codes: Longs, weights: Floats) -> None:
    """Vertex codes and barycentric weights of the simplex around each point, both P×(d+1).

    A vertex k is Σ n_i s_i, where s_i is the lattice's step along axis i = 0 … d - 1 and n_i = (k_i - k_d) / (d + 1).
    Its code is Σ (n_i - low_i) · steps_i, so that neighbours along axis i differ by steps_i. All d + 1 steps sum to 0.
    """
    n_points, size = elevated.shape
    d = size - 1
    nearest = np.empty(size, np.float32)
    rank = np.empty(size, np.int64)
    at_rank = np.empty(size, np.int64)
    barycentric = np.empty(size + 1, np.float32)
    inverse = np.float32(1) / np.float32(size)
    for p in range(n_points):
        _nearest_remainder_zero(elevated[p], nearest, rank)
        barycentric[:] = 0
        for i in range(size):
            at_rank[rank[i]] = i
            ascent = (elevated[p, i] - nearest[i]) * inverse
            barycentric[d - rank[i]] += ascent
            barycentric[size - rank[i]] -= ascent
        barycentric[0] += np.float32(1) + barycentric[size]

        code = np.int64(0)
        for i in range(d):
            code += (np.int64(nearest[i] - nearest[d]) // size - low[i]) * steps[i]
        for remainder in range(size):
            codes[p, remainder] = code
            weights[p, remainder] = barycentric[remainder]
            code -= steps[at_rank[d - remainder]]


@_kernel
def _nearest_remainder_zero(point: Floats, nearest: Floats, rank: Longs) -> None:
    """The lattice point of remainder 0 whose simplices surround ``point``, and the residuals' descending ranks."""
    size = len(point)
    inverse = np.float32(1) / np.float32(size)
    total = np.float32(0)
    for i in range(size):
        above = np.float32(math.ceil(point[i] * inverse)) * np.float32(size)
        below = np.float32(math.floor(point[i] * inverse)) * np.float32(size)
        nearest[i] = above if above - point[i] < point[i] - below else below
        total += nearest[i]
    # Rounding can leave the plane of zero sum: move the coordinates with the largest rounding error back onto it.
    rank[:] = np.int64(round(total * inverse))
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
def link_chains(vertices: Longs, step: int, first: int, end: int, up: Ints, chains: Ints) -> int:
    """Runs of two or more vertices whose sorted codes differ by ``step`` > 0; returns the used length of ``chains``.

    Vertices are numbered from ``first``; the number ``end``, which none of them has, stands before and after each run.
    """
    n_vertices = len(vertices)
    has_lower = np.zeros(n_vertices, np.bool_)
    u = 0
    for v in range(n_vertices):
        while u < n_vertices and vertices[u] < vertices[v] + step:
            u += 1
        up[v] = n_vertices
        if u < n_vertices and vertices[u] == vertices[v] + step:
            up[v] = u
            has_lower[u] = True
    chains[0] = end
    length = 1
    for v in range(n_vertices):
        if has_lower[v] or up[v] == n_vertices:
            continue
        u = v
        while u < n_vertices:
            chains[length] = first + u
            length += 1
            u = up[u]
        chains[length] = end
        length += 1
    return length


@_kernel
def splat(values: Floats, vertex_of: Ints, weights: Floats, table: Floats) -> None:
    """Overwrite the table with the weighted sums of the rows of P×LANES ``values`` around each vertex."""
    points, rows = values.reshape(-1), table.reshape(-1)
    n_points, n_corners = vertex_of.shape
    rows[:] = 0
    for p in range(n_points):
        value, soon = _load(points, p * LANES), min(p + AHEAD // n_corners, n_points - 1)
        for corner in range(n_corners):
            _prefetch(rows, np.int64(vertex_of[soon, corner]) * LANES)
            row = np.int64(vertex_of[p, corner]) * LANES
            _store(rows, row, _plus(_load(rows, row), _times(value, _broadcast(weights[p, corner]))))


@_kernel
def blur(table: Floats, chains: Ints) -> None:
    """The kernel [1/2, 1, 1/2] along each chain, one after the other, in place; a vertex in no chain keeps its row.

    Between two chains stands the number of the table's last row but one, which stays zero; ``AHEAD`` times it ends the
    last one. What would be stored there goes to the last row: a branch at each end is mispredicted so often that it
    takes as long as the rest.
    """
    rows = table.reshape(-1)
    zero_row = len(table) - 2
    half = _broadcast(np.float32(0.5))
    below, here = _broadcast(np.float32(0)), _broadcast(np.float32(0))
    for k in range(len(chains) - AHEAD):
        _prefetch(rows, np.int64(chains[k + AHEAD]) * LANES)
        row = np.int64(chains[k])
        above = _load(rows, np.int64(chains[k + 1]) * LANES)
        blurred = _plus(here, _times(_plus(below, above), half))
        _store(rows, (row + (row == zero_row)) * LANES, blurred)
        below, here = here, above


@_kernel
def add_slice(table: Floats, vertex_of: Ints, weights: Floats, factor: float, base: Floats, out: Floats) -> None:
    """P×LANES out = base + factor times the weighted sum of the rows of each point's vertices."""
    rows, before, after = table.reshape(-1), base.reshape(-1), out.reshape(-1)
    n_points, n_corners = vertex_of.shape
    for p in range(n_points):
        value, soon = _load(before, p * LANES), min(p + AHEAD // n_corners, n_points - 1)
        for corner in range(n_corners):
            _prefetch(rows, np.int64(vertex_of[soon, corner]) * LANES)
            row = _load(rows, np.int64(vertex_of[p, corner]) * LANES)
            value = _plus(value, _times(row, _broadcast(factor * weights[p, corner])))
        _store(after, p * LANES, value)


@_kernel
def softmax(blocks: Floats) -> None:
    """Softmax of each point's channels, n×P×LANES, in place."""
    for p in range(blocks.shape[1]):
        largest = _load(blocks[0, p], 0)
        for block in range(1, len(blocks)):
            largest = _maximum(largest, _load(blocks[block, p], 0))
        shift = _broadcast(-_largest_lane(largest))
        total = _broadcast(np.float32(0))
        for block in range(len(blocks)):
            value = _exp(_plus(_load(blocks[block, p], 0), shift))
            total = _plus(total, value)
            _store(blocks[block, p], 0, value)
        factor = _broadcast(np.float32(1) / _sum_of_lanes(total))
        for block in range(len(blocks)):
            _store(blocks[block, p], 0, _times(_load(blocks[block, p], 0), factor))
