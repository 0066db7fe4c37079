"""Keys of ViTs with rotary position embeddings: DINOv3, EVA-02 and other models of timm's class Eva."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

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
        rotation = self.rope.get_embed(shape=grid)
        return [partial(block, rope=rotation) for block in self.blocks]

    def _keys_only(self, block: Any, tokens: Tensor) -> Tensor:
        if block.attn.k_proj is not None:
            return block.attn.k_proj(block.norm1(tokens))
        # EVA's qkv layer has no bias; the key's bias, a buffer outside it, is always zero.
        return super()._keys_only(block, tokens)
