"""Cues of single images: k-means of one image's own eigenvectors, with the number of parts by the eigengap.

``eicue`` shares one codebook between all images, and so its labels. Here a label means nothing in another image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LLOYD_STEPS = 10
FEWEST_PARTS = 2


@torch.no_grad()
def image_cue(values: Tensor, vectors: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cluster each image's patches by its own eigenvectors.

    A graph of m separate parts has m zero eigenvalues, and the rows of their eigenvectors point in m directions. So an
    image with m parts is clustered by the directions of the rows of its eigenvectors 2 to m, with cosine k-means as the
    codebook of ``eicue`` compares. The signs of the eigenvectors do not matter.

    Args:
        values: B×v ascending eigenvalues, the trivial one first; ``vectors.shape[2] + 1`` of them, or all N of a small
            graph. The last shows the gap after the last eigenvector.
        vectors: B×N×k eigenvectors, the trivial one first.
        grid: (h, w) with h·w = N.

    Returns:
        B×h×w int64 labels in [0, max(k, 2)).

    Example:
        >>> import torch
        >>> from eagle import normalized_laplacian, smallest_eigenpairs
        >>> from eagle.spectral.image_cue import image_cue
        >>> parts = torch.block_diag(torch.ones(3, 3), torch.ones(2, 2), torch.ones(3, 3))[None]
        >>> values, vectors = smallest_eigenpairs(*normalized_laplacian(parts), k=5)
        >>> image_cue(values, vectors[:, :, :4], grid=(2, 4))[0].flatten().unique_consecutive().numel()
        3
    """
    n_parts = parts_by_eigengap(values)
    # Eigenvectors 2 to m; with the trivial one left out, the first m - 1 columns.
    column = torch.arange(1, vectors.shape[2], device=vectors.device)
    rows = torch.where(column < n_parts[:, None, None], vectors[:, :, 1:].float(), 0)
    return cosine_kmeans_of_images(rows, n_parts, max(vectors.shape[2], FEWEST_PARTS)).unflatten(1, grid)


def parts_by_eigengap(values: Tensor) -> Tensor:
    """The m ≥ 2 with the largest gap between eigenvalues m and m + 1, B×v ascending → B int64; 2 if v < 3."""
    if values.shape[1] <= FEWEST_PARTS:
        return torch.full(values.shape[:1], FEWEST_PARTS, device=values.device)
    return values.diff(dim=1)[:, FEWEST_PARTS - 1 :].argmax(dim=1) + FEWEST_PARTS


def cosine_kmeans_of_images(rows: Tensor, n_parts: Tensor, most_parts: int) -> Tensor:
    """K-means of each image's rows by cosine, deterministic and without synchronising with the device.

    The first centre is the longest row, and each next one the row farthest from those before. A centre that loses all
    its members stays where it is.

    Args:
        rows: B×N×d floating point, of any length.
        n_parts: B int64, the number of clusters of each image.
        most_parts: upper bound of ``n_parts``.

    Returns:
        B×N int64 labels; those of image b are below ``n_parts[b]``.
    """
    points = F.normalize(rows, dim=2)
    parts = torch.arange(most_parts, device=rows.device)
    unused = parts >= n_parts[:, None]
    centres = _farthest_points(points, rows.norm(dim=2).argmax(dim=1), most_parts)
    for _ in range(LLOYD_STEPS):
        members = _nearest(points, centres, unused)[:, :, None] == parts
        sums = members.mT.to(points.dtype) @ points
        centres = torch.where(members.any(dim=1)[:, :, None], F.normalize(sums, dim=2), centres)
    return _nearest(points, centres, unused)


def _farthest_points(points: Tensor, first: Tensor, count: int) -> Tensor:
    """``count`` of the B×N×d points, starting with number ``first`` (B): B×count×d."""
    images = torch.arange(len(points), device=points.device)
    centres = [points[images, first]]
    closest = torch.full_like(points[:, :, 0], -torch.inf)
    for _ in range(count - 1):
        closest = torch.maximum(closest, torch.bmm(points, centres[-1][:, :, None]).squeeze(2))
        centres.append(points[images, closest.argmin(dim=1)])
    return torch.stack(centres, dim=1)


def _nearest(points: Tensor, centres: Tensor, unused: Tensor) -> Tensor:
    return (points @ centres.mT).masked_fill(unused[:, None], -torch.inf).argmax(dim=2)
