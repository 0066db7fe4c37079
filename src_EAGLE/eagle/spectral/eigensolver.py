"""Smallest eigenpairs of a batch of normalised Laplacians (docs/method.md §4).

The smallest eigenpairs of L are the largest of M = I - L = D^-½ A D^-½. Most eigenvalues of M are close to zero, and
its top eigenvector, ∝ √degree, is known. A few multiplications of a block of vectors by M therefore find the next ones
without decomposing the whole matrix.

On a GPU every value that the host reads, and every error check of ``torch.linalg.eigh``, makes the host wait, and
``torch.linalg.qr`` decomposes tall matrices one by one. There the number of iterations is fixed, blocks are
orthonormalised by Cholesky's decomposition, and the host waits at the end only: for one small eigh, which orders the
vectors, and for the list of images that did not converge.
"""

import math

import torch
from torch import Tensor

from eagle.distributed import device_rows
from eagle.errors import ConfigError, unknown_name_message

METHODS = ("subspace", "eigh")

GUARD_VECTORS = 8
# The block is padded to 16 columns: its matrix products are 3× faster than with 11.
BLOCK_MULTIPLE = 16
FILTER_DEGREE = 3
# Largest ratio of top eigenvalue to filter edge; the filter then amplifies 3e4-fold.
FILTER_REACH = 20
MAX_ITERATIONS = 12
RESIDUAL_TOLERANCE = 1e-4
# Bound on the angle between returned and true eigenvector, estimated as residual / gap.
ANGLE_TOLERANCE = 1e-3
# A full decomposition is faster for fewer than this many patches per block vector.
SMALL_BLOCK_RATIO = 8
SEED = 0
# Device types for which torch has neither eigh nor qr (Apple's GPUs).
WITHOUT_DECOMPOSITIONS = ("mps",)
# Device types on which the host need not wait for a value, so that the iteration can end early.
WITHOUT_WAITING = ("cpu",)


def smallest_eigenpairs(laplacian: Tensor, degree: Tensor, k: int, method: str = "subspace") -> tuple[Tensor, Tensor]:
    """The k eigenpairs of smallest eigenvalue; column signs are arbitrary.

    Args:
        laplacian: normalised Laplacian, B×N×N.
        degree: B×N; √degree spans the null space of the Laplacian.
        k: number of pairs; at most N are returned.
        method: "eigh" decomposes the upper triangle in full, as released; "subspace" iterates on a block of at least
            k + 7 vectors and falls back to "eigh" for images that do not converge.

    Returns:
        Eigenvalues B×k, ascending, and unit eigenvectors B×N×k, in the Laplacian's dtype; NaN for an image whose
        degrees are not finite.

    Raises:
        ConfigError: unknown method.

    Example:
        >>> import torch
        >>> from eagle import normalized_laplacian, smallest_eigenpairs
        >>> two_objects = torch.block_diag(torch.ones(3, 3), torch.ones(2, 2))[None]
        >>> values, vectors = smallest_eigenpairs(*normalized_laplacian(two_objects), k=3)
        >>> [round(abs(value), 3) for value in values[0].tolist()]  # a zero for each object
        [0.0, 0.0, 1.0]
    """
    if method not in METHODS:
        raise ConfigError(unknown_name_message("eigensolver", method, METHODS))
    # LAPACK fails for the whole batch if one image is not finite; NaN for that image lets the caller report it.
    finite = degree.isfinite().all(dim=1)[:, None, None]
    laplacian = torch.where(finite, laplacian, 0)
    degree = torch.where(finite[:, :, 0], degree, 1)
    device = torch.device("cpu") if laplacian.device.type in WITHOUT_DECOMPOSITIONS else laplacian.device
    pairs = _eigenpairs(laplacian.to(device), degree.to(device), k, method)
    values, vectors = (part.to(laplacian.device) for part in pairs)
    return torch.where(finite[:, :, 0], values, torch.nan), torch.where(finite, vectors, torch.nan)


def _eigenpairs(laplacian: Tensor, degree: Tensor, k: int, method: str) -> tuple[Tensor, Tensor]:
    n = laplacian.shape[1]
    block = math.ceil((k - 1 + GUARD_VECTORS) / BLOCK_MULTIPLE) * BLOCK_MULTIPLE
    if method == "eigh" or k == 1 or n < SMALL_BLOCK_RATIO * block:
        return _by_eigh(laplacian, k)
    values, vectors, converged = _by_subspace_iteration(laplacian, degree, k, block)
    failed = [row for row, is_good in enumerate(converged.tolist()) if not is_good]
    if failed:
        rows = device_rows(failed, laplacian.device)
        values[rows], vectors[rows] = _by_eigh(laplacian[rows], k)
    return values, vectors


def _by_eigh(laplacian: Tensor, k: int) -> tuple[Tensor, Tensor]:
    # As released. The triangle that is read does not change the pairs, but the signs that LAPACK gives them.
    values, vectors = torch.linalg.eigh(laplacian, UPLO="U")
    return values[:, :k], vectors[:, :, :k]


def _by_subspace_iteration(laplacian: Tensor, degree: Tensor, k: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Chebyshev-filtered subspace iteration with Rayleigh-Ritz: values, vectors, and which images converged (B bool).

    The random start, the same for each image, has a fixed seed and its own generator, so the global random state is
    neither read nor changed. It is drawn on the device, which takes no copy.
    """
    b, n, _ = laplacian.shape
    generator = torch.Generator(laplacian.device).manual_seed(SEED)
    start = torch.randn(n, block, generator=generator, dtype=laplacian.dtype, device=laplacian.device)
    trivial = degree.sqrt() / degree.sum(dim=1, keepdim=True).sqrt()
    iterate = _iterate_until_converged if laplacian.device.type in WITHOUT_WAITING else _iterate_without_waiting
    ritz, basis, converged = iterate(laplacian, trivial, start.expand(b, -1, -1), k - 1)
    converged &= (laplacian @ trivial[:, :, None]).norm(dim=(1, 2)) < RESIDUAL_TOLERANCE
    values = torch.cat([torch.zeros_like(ritz[:, :1]), 1 - ritz[:, : k - 1]], dim=1)
    return values, torch.cat([trivial[:, :, None], basis[:, :, : k - 1]], dim=2), converged


def _iterate_until_converged(
    laplacian: Tensor, trivial: Tensor, start: Tensor, wanted: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz values, Ritz vectors, and which images converged; ends as soon as all have."""
    basis = torch.linalg.qr(start).Q
    ritz, basis, product = _rayleigh_ritz(basis, _deflated_product(laplacian, trivial, basis))
    for _ in range(MAX_ITERATIONS):
        basis = torch.linalg.qr(_filtered(laplacian, trivial, basis, product, ritz[:, 0], ritz[:, -1])).Q
        ritz, basis, product = _rayleigh_ritz(basis, _deflated_product(laplacian, trivial, basis))
        converged = _converged(ritz, basis, product, wanted)
        if converged.all():
            break
    return ritz, basis, converged


def _iterate_without_waiting(
    laplacian: Tensor, trivial: Tensor, start: Tensor, wanted: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz values, Ritz vectors, and which images converged, after MAX_ITERATIONS.

    Cholesky's decomposition orders the columns by their eigenvalues, so that the lengths of their products with M stand
    in for Ritz values.
    """
    basis = _orthonormal(start)
    product = _deflated_product(laplacian, trivial, basis)
    for _ in range(MAX_ITERATIONS):
        lengths = product.norm(dim=1)
        basis = _orthonormal(_filtered(laplacian, trivial, basis, product, lengths.amax(dim=1), lengths.amin(dim=1)))
        product = _deflated_product(laplacian, trivial, basis)
    ritz, basis, product = _rayleigh_ritz(basis, product)
    return ritz, basis, _converged(ritz, basis, product, wanted)


def _orthonormal(block: Tensor) -> Tensor:
    """Orthonormal basis of the columns, by Cholesky's decomposition RᵀR of their Gram matrix; zeros where that fails.

    Squaring doubles the digits that are lost: in float64 the columns may differ in length and direction by the filter's
    amplification, with one pass to spare a second.
    """
    exact = block.double()
    factor = torch.linalg.cholesky_ex(exact.transpose(1, 2) @ exact, upper=True).L
    basis = torch.linalg.solve_triangular(factor, exact, upper=True, left=False)
    return basis.to(block.dtype).nan_to_num(nan=0, posinf=0, neginf=0)


def _deflated_product(laplacian: Tensor, trivial: Tensor, vectors: Tensor) -> Tensor:
    """(M - t·tᵀ)·vectors: M = I - L with its trivial eigenvector t (eigenvalue 1) deflated."""
    t = trivial[:, :, None]
    return torch.baddbmm(vectors - t @ (t.transpose(1, 2) @ vectors), laplacian, vectors, alpha=-1)


def _filtered(
    laplacian: Tensor, trivial: Tensor, basis: Tensor, product: Tensor, largest: Tensor, smallest: Tensor
) -> Tensor:
    """The basis after a Chebyshev polynomial of M, which is at most one on [-edge, edge] and grows steeply outside.

    The edge is the block's smallest eigenvalue (B), bounded from below so that the result can still be orthonormalised.
    """
    edge = torch.maximum(smallest, largest / FILTER_REACH)[:, None, None]
    previous, current = basis, product / edge
    for _ in range(FILTER_DEGREE - 1):
        previous, current = current, 2 / edge * _deflated_product(laplacian, trivial, current) - previous
    return current


def _rayleigh_ritz(basis: Tensor, product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz values of M, descending, and the basis and its product rotated to the Ritz vectors."""
    small = basis.transpose(1, 2) @ product
    values, rotation = torch.linalg.eigh((small + small.transpose(1, 2)) / 2)
    values, rotation = values.flip(1), rotation.flip(2)
    return values, basis @ rotation, product @ rotation


def _converged(ritz: Tensor, basis: Tensor, product: Tensor, wanted: int) -> Tensor:
    """B bool: every wanted Ritz vector has a small residual, absolutely and relative to its eigengap."""
    residual = (product - ritz[:, None, :] * basis).norm(dim=1)[:, :wanted]
    gap_below = (ritz[:, :-1] - ritz[:, 1:])[:, :wanted]
    gap_above = torch.nn.functional.pad(gap_below[:, :-1], (1, 0), value=float("inf"))
    gap = torch.minimum(gap_below, gap_above)
    return ((residual < RESIDUAL_TOLERANCE) & (residual < ANGLE_TOLERANCE * gap)).all(dim=1)
