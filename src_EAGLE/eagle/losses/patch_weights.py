"""Semantic weights of patches: how much each resembles all patches of its image (method §5; paper equation 9)."""

import torch
from torch import Tensor

NORM_EPS = 1e-12
# The similarities of an image are made in this many rows and columns of blocks, of which symmetry saves the lower half.
N_BLOCKS = 4
# Similarities of half the patches cost less than channel correlations up to this many patches a channel.
PATCHES_PER_CHANNEL = 3


@torch.no_grad()
def patch_weights(keys: Tensor) -> Tensor:
    """Mean over j of R[i, j], the weight of patch i; R = KᵀK, its columns scaled to unit length.

    With c_j the length of column j the mean is kᵢ · Σ_j (k_j / c_j) / N, so that R itself is never held.

    Args:
        keys: K, B×C×h×w.

    Returns:
        B×N float32, N = h·w.
    """
    with torch.autocast(keys.device.type, enabled=False):
        tokens = keys.float().flatten(2)
        n_channels, n_patches = tokens.shape[1:]
        by_patches = n_patches <= PATCHES_PER_CHANNEL * n_channels
        squares = _squares_by_patches(tokens) if by_patches else _squares_by_channels(tokens)
        scale = 1 / (squares.clamp(min=0).sqrt().clamp(min=NORM_EPS) * n_patches)
        return torch.bmm(torch.bmm(tokens, scale[:, :, None]).transpose(1, 2), tokens).squeeze(1)


def _squares_by_patches(tokens: Tensor) -> Tensor:
    """Squared lengths of R's columns from blocks of R; B×C×N → B×N."""
    blocks = tokens.chunk(N_BLOCKS, dim=2)
    squares = [torch.zeros_like(block[:, 0]) for block in blocks]
    for i, rows in enumerate(blocks):
        for j, columns in enumerate(blocks[i:], start=i):
            similarity = torch.bmm(rows.transpose(1, 2), columns).square_()
            squares[j] += similarity.sum(dim=1)
            if j > i:
                squares[i] += similarity.sum(dim=2)
    return torch.cat(squares, dim=1)


def _squares_by_channels(tokens: Tensor) -> Tensor:
    """The same as k_jᵀ G k_j with the channel correlations G = Σ_i kᵢkᵢᵀ."""
    gram = torch.bmm(tokens, tokens.transpose(1, 2))
    return (torch.bmm(gram, tokens) * tokens).sum(dim=1)
