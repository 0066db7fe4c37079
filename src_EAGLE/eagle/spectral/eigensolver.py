"""Smallest eigenpairs of a batch of normalised Laplacians (method §4).

The smallest eigenpairs of L are the largest of M = I - L = D^-½ A D^-½. Most eigenvalues of M are close to zero, and
its top eigenvector, ∝ √degree, is known. A few multiplications of a block of vectors by M therefore find the next ones
without decomposing the whole matrix.
"""

import math

import torch
from torch import Tensor

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


def smallest_eigenpairs(laplacian: Tensor, degree: Tensor, k: int, method: str = "subspace") -> tuple[Tensor, Tensor]:
    """The k eigenpairs of smallest eigenvalue; column signs are arbitrary.

    Args:
        laplacian: normalised Laplacian, B×N×N.
        degree: B×N; √degree spans the null space of the Laplacian.
        k: number of pairs; at most N are returned.
        method: "eigh" is a full decomposition; "subspace" iterates on a block of at least k + 7 vectors and falls
            back to "eigh" for images that do not converge.

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
    device = solver_device(laplacian.device)
    pairs = _eigenpairs(laplacian.to(device), degree.to(device), k, method)
    values, vectors = (part.to(laplacian.device) for part in pairs)
    return torch.where(finite[:, :, 0], values, torch.nan), torch.where(finite, vectors, torch.nan)


def solver_device(device: torch.device) -> torch.device:
    """The device that decomposes matrices from ``device``: itself, or the CPU if torch has no solver for it."""
    return torch.device("cpu") if device.type in WITHOUT_DECOMPOSITIONS else device


def _eigenpairs(laplacian: Tensor, degree: Tensor, k: int, method: str) -> tuple[Tensor, Tensor]:
    n = laplacian.shape[1]
    block = math.ceil((k - 1 + GUARD_VECTORS) / BLOCK_MULTIPLE) * BLOCK_MULTIPLE
    if method == "eigh" or k == 1 or n < SMALL_BLOCK_RATIO * block:
        return _by_eigh(laplacian, k)
    values, vectors, converged = _by_subspace_iteration(laplacian, degree, k, block)
    if not converged.all():
        values[~converged], vectors[~converged] = _by_eigh(laplacian[~converged], k)
    return values, vectors


def _by_eigh(laplacian: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(laplacian)
    return values[:, :k], vectors[:, :, :k]


def _by_subspace_iteration(laplacian: Tensor, degree: Tensor, k: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Chebyshev-filtered subspace iteration with Rayleigh-Ritz: values, vectors, and which images converged (B bool).

    The random start has a fixed seed and its own generator, so the global random state is neither read nor changed.
    """
    b, n, _ = laplacian.shape
    trivial = degree.sqrt() / degree.sum(dim=1, keepdim=True).sqrt()
    generator = torch.Generator().manual_seed(SEED)
    start = torch.randn(n, block, generator=generator, dtype=laplacian.dtype).to(laplacian.device)
    basis = torch.linalg.qr(start.expand(b, -1, -1)).Q
    product = _deflated_product(laplacian, trivial, basis)
    ritz, basis, product = _rayleigh_ritz(basis, product)
    for _ in range(MAX_ITERATIONS):
        basis = torch.linalg.qr(_filtered(laplacian, trivial, basis, product, ritz)).Q
        product = _deflated_product(laplacian, trivial, basis)
        ritz, basis, product = _rayleigh_ritz(basis, product)
        converged = _converged(ritz, basis, product, k - 1)
        if converged.all():
            break
    converged &= (laplacian @ trivial[:, :, None]).norm(dim=(1, 2)) < RESIDUAL_TOLERANCE
    values = torch.cat([torch.zeros_like(ritz[:, :1]), 1 - ritz[:, : k - 1]], dim=1)
    return values, torch.cat([trivial[:, :, None], basis[:, :, : k - 1]], dim=2), converged


def _deflated_product(laplacian: Tensor, trivial: Tensor, vectors: Tensor) -> Tensor:
    """(M - t·tᵀ)·vectors: M = I - L with its trivial eigenvector t (eigenvalue 1) deflated."""
    t = trivial[:, :, None]
    return torch.baddbmm(vectors - t @ (t.transpose(1, 2) @ vectors), laplacian, vectors, alpha=-1)


def _filtered(laplacian: Tensor, trivial: Tensor, basis: Tensor, product: Tensor, ritz: Tensor) -> Tensor:
    """The basis after a Chebyshev polynomial of M, which is at most one on [-edge, edge] and grows steeply outside.

    The edge is the smallest Ritz value of the block, bounded from below so that float32 can still orthonormalise.
    """
    edge = torch.maximum(ritz[:, -1], ritz[:, 0] / FILTER_REACH)[:, None, None]
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
