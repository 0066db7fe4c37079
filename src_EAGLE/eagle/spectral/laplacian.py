"""Symmetric normalised graph Laplacian (docs/method.md §4; paper equation 5)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

SMALLEST_DEGREE = 1e-12


@torch.no_grad()
def normalized_laplacian(affinity: Tensor) -> tuple[Tensor, Tensor]:
    """L = D^-½ (D - A) D^-½.

    Args:
        affinity: B×N×N, symmetric and non-negative.

    Returns:
        The Laplacian L, B×N×N, and the degrees d = A·1, B×N; degrees below 1e-12 count as 1.

    Example:
        >>> import torch
        >>> from eagle import normalized_laplacian
        >>> laplacian, degree = normalized_laplacian(torch.ones(1, 2, 2))
        >>> laplacian
        tensor([[[ 0.5000, -0.5000],
                 [-0.5000,  0.5000]]])
        >>> degree
        tensor([[2., 2.]])
    """
    degree = affinity.sum(dim=2)
    degree = torch.where(degree < SMALLEST_DEGREE, torch.ones_like(degree), degree)
    scale = degree.rsqrt()
    laplacian = (affinity * -scale[:, :, None]).mul_(scale[:, None, :])
    laplacian.diagonal(dim1=1, dim2=2).add_(degree * scale.square())
    return laplacian, degree


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute in full float32, whatever autocast and ``torch.set_float32_matmul_precision`` say outside."""
    outside = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(outside)
