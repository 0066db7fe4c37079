"""Position embeddings at another grid than the pre-training one; each model family resamples them its own way."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class PositionRule:
    """How a family's stored grid is resampled (bicubic, align_corners False).

    Attributes:
        scale_offset: where set, sampling positions come from the scale factor (new + offset) / old instead of from
            the output size, as in DINO's code.
        antialias: whether the filter widens when the grid shrinks.
    """

    scale_offset: float | None = None
    antialias: bool = False


def position_rule(timm_name: str) -> PositionRule:
    """The rule of the family that a timm model name belongs to: DINO, DINOv2, or timm's own for all others."""
    if timm_name.endswith(".dino"):
        return PositionRule(scale_offset=0.1)
    if "dinov2" in timm_name and "reg" not in timm_name:
        return PositionRule()
    return PositionRule(antialias=True)


def resample_position_embedding(
    embedding: Tensor, stored: tuple[int, int], grid: tuple[int, int], n_prefix: int, rule: PositionRule
) -> Tensor:
    """Position embeddings for ``grid``; untouched where it is the stored one.

    Args:
        embedding: 1×(n_prefix + H₀·W₀)×C.
        stored: (H₀, W₀), the pre-training grid.
        grid: (h, w) asked for.
        n_prefix: leading entries that belong to prefix tokens and stay as they are.
        rule: the family's rule.

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
    """The scale-factor rule without a branch on the grid's size, for graphs in which that is a variable.

    Where the grid is the stored one the offset is dropped, and every sample falls on an entry.
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
