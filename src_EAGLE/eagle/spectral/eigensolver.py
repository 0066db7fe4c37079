"""Smallest eigenpairs of a batch of normalised Laplacians (method §4)."""

import torch
from torch import Tensor

from eagle.config_validation import unknown_name_message
from eagle.errors import ConfigError


def smallest_eigenpairs(
    laplacian: Tensor,
    degree: Tensor,  # noqa: ARG001  (for solvers that deflate the known null vector)
    k: int,
    method: str = "eigh",
) -> tuple[Tensor, Tensor]:
    """The k eigenpairs of smallest eigenvalue; column signs are arbitrary.

    Args:
        laplacian: B×N×N symmetric.
        degree: B×N, the degrees it was normalised with; √degree spans its known null vector.
        k: number of pairs; cut to N where there are fewer patches.
        method: "eigh" decomposes in full.

    Returns:
        Eigenvalues B×k, ascending, and eigenvectors B×N×k of unit length, in the Laplacian's dtype.

    Raises:
        ConfigError: an unknown method.
    """
    if method != "eigh":
        raise ConfigError(unknown_name_message("eigensolver", method, ["eigh"]))
    values, vectors = torch.linalg.eigh(laplacian)
    return values[:, :k], vectors[:, :, :k]
