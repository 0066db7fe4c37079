"""Position embeddings on a patch grid other than the pre-training one, by each model family's rule."""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class PositionRule:
    """How a model family resamples its position embeddings (bicubic, align_corners False).

    Attributes:
        scale_offset: DINO resizes by the factor (new size + 0.1) / stored size, and samples at positions of that
            factor; None resizes to the new size.
        antialias: whether to antialias when the grid shrinks.
    """

    scale_offset: float | None = None
    antialias: bool = False


def position_rule(timm_name: str) -> PositionRule:
    """The resampling rule of a timm model: DINO's, DINOv2's, or timm's own for all others."""
    if timm_name.endswith(".dino"):
        return PositionRule(scale_offset=0.1)
    if "dinov2" in timm_name and "reg" not in timm_name:
        return PositionRule()
    return PositionRule(antialias=True)


def resample_position_embedding(
    embedding: Tensor, stored: tuple[int, int], grid: tuple[int, int], n_prefix: int, rule: PositionRule
) -> Tensor:
    """Position embeddings for a patch grid; unchanged if it equals the stored one.

    Args:
        embedding: 1×(n_prefix + H₀·W₀)×C.
        stored: pre-training grid (H₀, W₀).
        grid: new grid (h, w).
        n_prefix: number of leading entries for prefix tokens, which are kept unchanged.
        rule: the model family's rule.

    Returns:
        1×(n_prefix + h·w)×C.
    """
    exporting = torch.compiler.is_exporting()
    if not exporting and grid == stored:
        return embedding
    prefix, patches = embedding[:, :n_prefix], embedding[:, n_prefix:]
    image = patches.unflatten(1, stored).permute(0, 3, 1, 2).float()
    if exporting and rule.scale_offset is not None:
        resampled = _resampled_for_any_grid(image, grid, rule.scale_offset)
    elif rule.scale_offset is None:
        resampled = F.interpolate(image, size=grid, mode="bicubic", antialias=rule.antialias)
    else:
        factors = [(new + rule.scale_offset) / old for new, old in zip(grid, stored, strict=True)]
        resampled = F.interpolate(image, scale_factor=factors, mode="bicubic", antialias=rule.antialias)
    return torch.cat([prefix, resampled.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


def _resampled_for_any_grid(image: Tensor, grid: tuple[int, int], offset: float) -> Tensor:
    """The scale-factor rule without a branch on the grid size, for exported graphs with dynamic size.

    On the stored grid the offset is zero, so every sample falls on a stored entry.
    """
    sizes = [torch.full((), new, dtype=image.dtype, device=image.device) for new in grid]
    stored = image.shape[2:]
    offset_now = offset * torch.stack([size != old for size, old in zip(sizes, stored, strict=True)]).any()
    rows, columns = (
        (2 * torch.arange(new, device=image.device) + 1) / (size + offset_now) - 1
        for new, size in zip(grid, sizes, strict=True)
    )
    positions = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2)[None]
    return F.grid_sample(image, positions, mode="bicubic", padding_mode="border", align_corners=False)


def dinov3_rotation_for_any_grid(grid: tuple[int, int], periods: Tensor) -> Tensor:
    """The rotation of timm's RotaryEmbeddingDinoV3, N×(sines, cosines), for exported graphs with dynamic size.

    timm converts the grid's sizes to floats, which would fix them in the graph.
    """
    rows, columns = (
        (2 * torch.arange(size, device=periods.device) + 1) / torch.full((), size, device=periods.device) - 1
        for size in grid
    )
    positions = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=2).flatten(0, 1)
    angles = (2 * pi * positions[:, :, None] / periods).flatten(1)
    return torch.cat([angles.sin().tile(2), angles.cos().tile(2)], dim=1)
