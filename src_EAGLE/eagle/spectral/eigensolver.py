"""Smallest eigenpairs of a batch of normalised Laplacians (method §4).

The smallest eigenpairs of L are the largest of M = I - L = D^-½ A D^-½, whose bulk lies close to zero and whose top
vector √degree is known: a few block multiplications by M find the next ones, where a full decomposition finds all N.
"""

import math

import torch
from torch import Tensor

from eagle.errors import ConfigError, unknown_name_message

METHODS = ("subspace", "eigh")

GUARD_VECTORS = 8
# Matrix products of 16 columns took a third of the time of those of 11.
BLOCK_MULTIPLE = 16
FILTER_DEGREE = 3
# Ratio of the largest eigenvalue to the filter's edge, at the most; the filter then amplifies 3e4-fold.
FILTER_REACH = 20
MAX_ITERATIONS = 12
RESIDUAL_TOLERANCE = 1e-4
# Largest angle between a returned vector and the true one, as far as residual and gap bound it.
ANGLE_TOLERANCE = 1e-3
# Full decomposition is faster below this many patches for each vector of the block.
SMALL_BLOCK_RATIO = 8
SEED = 0
# Devices for which torch has neither eigh nor qr: Apple's GPUs.
WITHOUT_DECOMPOSITIONS = ("mps",)


def smallest_eigenpairs(laplacian: Tensor, degree: Tensor, k: int, method: str = "subspace") -> tuple[Tensor, Tensor]:
    """The k eigenpairs of smallest eigenvalue; column signs are arbitrary.

    Args:
        laplacian: B×N×N symmetric, normalised.
        degree: B×N, the degrees it was normalised with; √degree spans its null space.
        k: number of pairs; cut to N where there are fewer patches.
        method: "eigh" decomposes in full; "subspace" iterates on a block of at least k + 7 vectors and decomposes
            in full only the images that do not converge.

    Returns:
        Eigenvalues B×k, ascending, and eigenvectors B×N×k of unit length, in the Laplacian's dtype; nan for an image
        whose degrees are not finite.

    Raises:
        ConfigError: an unknown method.
    """
    if method not in METHODS:
        raise ConfigError(unknown_name_message("eigensolver", method, METHODS))
    # LAPACK would refuse the whole batch for one image; nan in, nan out lets the caller name what went wrong.
    finite = degree.isfinite().all(dim=1)[:, None, None]
    laplacian = torch.where(finite, laplacian, 0)
    degree = torch.where(finite[:, :, 0], degree, 1)
    where = decomposing_device(laplacian.device)
    pairs = _eigenpairs(laplacian.to(where), degree.to(where), k, method)
    values, vectors = (part.to(laplacian.device) for part in pairs)
    return torch.where(finite[:, :, 0], values, torch.nan), torch.where(finite, vectors, torch.nan)


def decomposing_device(device: torch.device) -> torch.device:
    """Where the matrices of a device are decomposed: there, or on the CPU where torch cannot."""
    return torch.device("cpu") if device.type in WITHOUT_DECOMPOSITIONS else device


def _eigenpairs(laplacian: Tensor, degree: Tensor, k: int, method: str) -> tuple[Tensor, Tensor]:
    n = laplacian.shape[1]
    block = math.ceil((k - 1 + GUARD_VECTORS) / BLOCK_MULTIPLE) * BLOCK_MULTIPLE
    if method == "eigh" or k == 1 or n < SMALL_BLOCK_RATIO * block:
        return _by_eigh(laplacian, k)
    values, vectors, converged = _by_subspace_iteration(laplacian, degree, k, block)
    if not converged.all():
        rest = ~converged
        values[rest], vectors[rest] = _by_eigh(laplacian[rest], k)
    return values, vectors


def _by_eigh(laplacian: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(laplacian)
    return values[:, :k], vectors[:, :, :k]


def _by_subspace_iteration(laplacian: Tensor, degree: Tensor, k: int, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Chebyshev-filtered subspace iteration with Rayleigh-Ritz; also says which images converged.

    The start is random with a seed of its own, so that the result neither depends on nor disturbs the run's random
    state.
    """
    b, n, _ = laplacian.shape
    trivial = degree.sqrt() / degree.sum(dim=1, keepdim=True).sqrt()
    generator = torch.Generator().manual_seed(SEED)
    start = torch.randn(n, block, generator=generator, dtype=laplacian.dtype).to(laplacian.device)
    basis = _orthonormal(start.expand(b, -1, -1))
    product = _apply(laplacian, trivial, basis)
    ritz, basis, product = _rayleigh_ritz(basis, product)
    for _ in range(MAX_ITERATIONS):
        basis = _orthonormal(_filtered(laplacian, trivial, basis, product, ritz))
        product = _apply(laplacian, trivial, basis)
        ritz, basis, product = _rayleigh_ritz(basis, product)
        converged = _converged(ritz, basis, product, k - 1)
        if converged.all():
            break
    converged &= (laplacian @ trivial[:, :, None]).norm(dim=(1, 2)) < RESIDUAL_TOLERANCE
    values = torch.cat([torch.zeros_like(ritz[:, :1]), 1 - ritz[:, : k - 1]], dim=1)
    return values, torch.cat([trivial[:, :, None], basis[:, :, : k - 1]], dim=2), converged


def _apply(laplacian: Tensor, trivial: Tensor, vectors: Tensor) -> Tensor:
    """(M - t·tᵀ)·vectors with M = I - L and t the trivial eigenvector, whose eigenvalue one would swamp the others."""
    t = trivial[:, :, None]
    return torch.baddbmm(vectors - t @ (t.transpose(1, 2) @ vectors), laplacian, vectors, alpha=-1)


def _orthonormal(vectors: Tensor) -> Tensor:
    """An orthonormal basis of the vectors' span."""
    basis, _ = torch.linalg.qr(vectors)
    return basis


def _filtered(laplacian: Tensor, trivial: Tensor, basis: Tensor, product: Tensor, ritz: Tensor) -> Tensor:
    """Chebyshev polynomial of M of the basis: at most one on [-edge, edge], steep beyond.

    The edge is the block's least Ritz value, but no less than keeps the largest amplification within what float32
    can orthonormalise afterwards.
    """
    edge = torch.maximum(ritz[:, -1], ritz[:, 0] / FILTER_REACH)[:, None, None]
    previous, current = basis, product / edge
    for _ in range(FILTER_DEGREE - 1):
        previous, current = current, 2 / edge * _apply(laplacian, trivial, current) - previous
    return current


def _rayleigh_ritz(basis: Tensor, product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz values of M, descending, with the rotated basis and its product."""
    small = basis.transpose(1, 2) @ product
    values, rotation = torch.linalg.eigh((small + small.transpose(1, 2)) / 2)
    values, rotation = values.flip(1), rotation.flip(2)
    return values, basis @ rotation, product @ rotation


def _converged(ritz: Tensor, basis: Tensor, product: Tensor, wanted: int) -> Tensor:
    """Images whose wanted Ritz vectors all have a small residual, in itself and beside the gap to their neighbours."""
    residual = (product - ritz[:, None, :] * basis).norm(dim=1)[:, :wanted]
    steps = (ritz[:, :-1] - ritz[:, 1:])[:, :wanted]
    above = torch.nn.functional.pad(steps[:, :-1], (1, 0), value=float("inf"))
    gap = torch.minimum(steps, above)
    return ((residual < RESIDUAL_TOLERANCE) & (residual < ANGLE_TOLERANCE * gap)).all(dim=1)
