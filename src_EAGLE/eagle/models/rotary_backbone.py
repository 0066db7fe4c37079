"""Keys of ViTs with rotary position embeddings: DINOv3, EVA-02 and other models of timm's class Eva."""

from collections.abc import Callable, Sequence
from functools import partial
from math import pi
from typing import Any

import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from eagle.models.backbone import KeyBackbone
from eagle.models.position_embedding import PositionRule


class RotaryBackbone(KeyBackbone):
    """Computes the patch keys K of a frozen rotary ViT, as they are before the rotation.

    The rotation depends on the patch's position, so rotated keys of equal patches would differ.

    Args:
        vit: a timm Eva built with ``dynamic_img_size=True``.
        key_blocks: ascending, distinct block numbers; None for the last three.
        rule: how absolute position embeddings, where the model has them, are resampled.
        normalization: maps ImageNet-normalised images to the model's own normalisation.

    Raises:
        ConfigError: ``key_blocks`` are not ascending blocks of this model.
    """

    def __init__(
        self, vit: Eva, key_blocks: Sequence[int] | None, rule: PositionRule, normalization: nn.Module
    ) -> None:
        super().__init__(vit, key_blocks, rule, normalization)
        self.rope: Any = vit.rope

    def _blocks_for(self, grid: tuple[int, int]) -> Sequence[Callable[[Tensor], Tensor]]:
        if torch.compiler.is_exporting() and hasattr(self.rope, "periods"):
            rotation = _dinov3_rotation_for_any_grid(grid, self.rope.periods)
        else:
            rotation = self.rope.get_embed(shape=grid)
        return [partial(block, rope=rotation) for block in self.blocks]

    def _keys_only(self, block: Any, tokens: Tensor) -> Tensor:
        if block.attn.k_proj is not None:
            return block.attn.k_proj(block.norm1(tokens))
        # EVA's qkv layer has no bias; the key's bias, a buffer outside it, is always zero.
        return super()._keys_only(block, tokens)


def _dinov3_rotation_for_any_grid(grid: tuple[int, int], periods: Tensor) -> Tensor:
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
