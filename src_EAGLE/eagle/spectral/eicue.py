"""EiCue: object cues from the eigenvectors of an image's graph Laplacian (docs/method.md §4; paper section 3.2)."""

import torch
from torch import Tensor

from eagle.models.probes import ClusterLookup
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.eigensolver import smallest_eigenpairs
from eagle.spectral.laplacian import full_float32, normalized_laplacian


@torch.no_grad()
def laplacian_eigenvectors(
    code: Tensor,
    img: Tensor,
    k: int,
    color_mode: str = "released",
    method: str = "subspace",
    signs: str = "fixed",
    affinity: str = "both",
) -> Tensor:
    """Eigenvectors of the k smallest eigenvalues of each image's Laplacian.

    Args:
        code: S, B×D×h×w; detached.
        img: image for the colour affinity, B×3×H×W, ImageNet-normalised.
        k: number of eigenvectors, including the trivial first one.
        color_mode: see ``color_affinity``.
        method: see ``smallest_eigenpairs``; without effect where ``signs`` is "released".
        signs: "fixed" applies ``fix_signs``; "released" applies ``released_signs`` to the vectors of the released
            solver, "eigh", because their relative signs are the solver's.
        affinity: "both" is A = A_c + A_f; "colour" is A = A_c, as in the released code before 30 August 2024.

    Returns:
        B×N×k float32, N = h·w; columns beyond N are zero.

    Example:
        >>> import torch
        >>> from eagle import laplacian_eigenvectors
        >>> laplacian_eigenvectors(torch.randn(2, 32, 8, 8), torch.zeros(2, 3, 64, 64), k=4).shape
        torch.Size([2, 64, 4])
    """
    h, w = code.shape[2:]
    with full_float32(code.device):
        total = color_affinity(img, (h, w), color_mode)
        if affinity == "both":
            total += feature_affinity(code.flatten(2).transpose(1, 2))
        laplacian, degree = normalized_laplacian(total)
        _, vectors = smallest_eigenpairs(laplacian, degree, k, "eigh" if signs == "released" else method)
    vectors = released_signs(vectors) if signs == "released" else fix_signs(vectors)
    return torch.nn.functional.pad(vectors, (0, k - vectors.shape[2]))


def fix_signs(vectors: Tensor) -> Tensor:
    """Fix the sign of each eigenvector, B×N×k → B×N×k, so that the cue does not depend on solver and machine.

    A column is negated if most of its non-zero entries are positive. A tie, which happens in about 6 % of random
    vectors at N = 196, is decided by the entry of largest magnitude, which becomes negative.
    """
    majority = vectors.sign().sum(dim=1, keepdim=True)
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return torch.where((majority > 0) | ((majority == 0) & (largest > 0)), -vectors, vectors)


def released_signs(vectors: Tensor) -> Tensor:
    """The released rule, B×N×k → B×N×k: negate an image's block if more than half, but not all, entries are positive.

    The columns' relative signs stay as the solver returned them.
    """
    positive = (vectors > 0).float().mean(dim=(1, 2), keepdim=True)
    return torch.where((positive > 0.5) & (positive < 1), -vectors, vectors)


def eicue(vectors: Tensor, grid: tuple[int, int], codebook: ClusterLookup) -> tuple[Tensor, Tensor]:
    """Cluster the non-trivial eigenvectors V (B×(k-1)×h×w) with a learnable codebook.

    With P = cos(V, centres): L_eig = -mean_over_positions(Σ_c softmax(P)_c P_c) and M = argmax_c P_c.

    Args:
        vectors: B×N×k by ascending eigenvalue; V omits the first, which is proportional to √degree.
        grid: (h, w) with h·w = N.
        codebook: centres in R^(k-1).

    Returns:
        The codebook loss L_eig (scalar) and the cue M, B×h×w int64 labels.

    Example:
        >>> import torch
        >>> from eagle import ClusterLookup, eicue
        >>> codebook = ClusterLookup(dim=3, n_classes=32)
        >>> loss, cue = eicue(torch.randn(2, 64, 4), grid=(8, 8), codebook=codebook)
        >>> cue.shape, cue.dtype
        (torch.Size([2, 8, 8]), torch.int64)
    """
    embedding = vectors[:, :, 1:].transpose(1, 2).unflatten(2, grid)
    loss, probs = codebook(embedding, alpha=1)
    return loss, probs.argmax(dim=1)
