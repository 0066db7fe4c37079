"""Semantic weight of each patch: its mean key similarity to all patches of its image (docs/method.md §5, eq. 9)."""

import torch
from torch import Tensor

NORM_EPS = 1e-12
# R is computed in N_TILES × N_TILES tiles, upper triangle only.
N_TILES = 4
# Tiles of R are faster than the C×C Gram matrix while N ≤ 3C.
PATCHES_PER_CHANNEL = 3


@torch.no_grad()
def patch_weights(keys: Tensor) -> Tensor:
    """Weight of patch i: the mean over j of R[i, j], where R = KᵀK (N×N) with columns scaled to unit length.

    With c_j the length of column j of KᵀK, the mean is kᵢ · Σ_j (k_j / c_j) / N, so R is never stored.

    Args:
        keys: K, B×C×h×w.

    Returns:
        B×N float32, N = h·w.
    """
    with torch.autocast(keys.device.type, enabled=False):
        tokens = keys.float().flatten(2)
        n_channels, n_patches = tokens.shape[1:]
        use_tiles = n_patches <= PATCHES_PER_CHANNEL * n_channels
        squares = _squared_lengths_by_tiles(tokens) if use_tiles else _squared_lengths_by_gram(tokens)
        scale = 1 / (squares.clamp(min=0).sqrt().clamp(min=NORM_EPS) * n_patches)
        return torch.bmm(torch.bmm(tokens, scale[:, :, None]).transpose(1, 2), tokens).squeeze(1)


def _squared_lengths_by_tiles(tokens: Tensor) -> Tensor:
    """Squared lengths c_j² of the columns of KᵀK, B×C×N → B×N, summed over its tiles."""
    chunks = tokens.chunk(N_TILES, dim=2)
    squares = [torch.zeros_like(chunk[:, 0]) for chunk in chunks]
    for i, rows in enumerate(chunks):
        for j, columns in enumerate(chunks[i:], start=i):
            tile = torch.bmm(rows.transpose(1, 2), columns).square_()
            squares[j] += tile.sum(dim=1)
            if j > i:
                squares[i] += tile.sum(dim=2)
    return torch.cat(squares, dim=1)


def _squared_lengths_by_gram(tokens: Tensor) -> Tensor:
    """The same from the C×C Gram matrix G = Σ_i kᵢkᵢᵀ: c_j² = k_jᵀ G k_j."""
    gram = torch.bmm(tokens, tokens.transpose(1, 2))
    return (torch.bmm(gram, tokens) * tokens).sum(dim=1)
