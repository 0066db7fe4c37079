"""Frozen vision transformer that returns the attention keys of its last blocks (method §1; paper section 3.1)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.errors import ConfigError
from eagle.models.position_embedding import PositionRule, resample_position_embedding


class KeyBackbone(nn.Module):
    """Computes the patch keys K of a frozen plain ViT: always in eval mode, no gradients.

    A key is the output of a block's key projection, before any normalisation of keys. Its parameters have timm's names,
    which DINO and the released checkpoints share.

    Args:
        vit: a timm model built with ``dynamic_img_size=True``.
        key_blocks: ascending, distinct block numbers; None for the last three.
        rule: how position embeddings are resampled to the image's patch grid.
        normalization: maps ImageNet-normalised images to the model's own normalisation.

    Raises:
        ConfigError: ``key_blocks`` are not ascending blocks of this model.
    """

    def __init__(
        self,
        vit: VisionTransformer | Eva,
        key_blocks: Sequence[int] | None,
        rule: PositionRule,
        normalization: nn.Module,
    ) -> None:
        super().__init__()
        self.normalization = normalization
        self.patch_embed: nn.Module = vit.patch_embed
        self.cls_token: nn.Parameter | None = vit.cls_token
        self.reg_token: nn.Parameter | None = vit.reg_token
        self.pos_embed: nn.Parameter | None = vit.pos_embed
        self.norm_pre: nn.Module = vit.norm_pre
        self.blocks = nn.ModuleList(vit.blocks)
        self.norm: nn.Module = vit.norm
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.embed_dim: int = vit.embed_dim
        self._grid_size: tuple[int, int] = vit.patch_embed.grid_size
        self._n_prefix: int = vit.num_prefix_tokens
        self._prefix_has_position: bool = not vit.no_embed_class
        self._rule = rule
        self.key_blocks = _resolved_blocks(key_blocks, len(vit.blocks))
        self.n_feats = len(self.key_blocks) * self.embed_dim
        self.requires_grad_(False)
        self.eval()

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) in pixels at which the position embeddings need no resampling."""
        return self._grid_size[0] * self.patch_size, self._grid_size[1] * self.patch_size

    def train(self, mode: bool = True) -> "KeyBackbone":  # noqa: ARG002
        """Stay in eval mode: the backbone is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, img: Tensor) -> Tensor:
        """K: the keys of ``key_blocks``, concatenated on channels, head-major within a block.

        Nothing after the last block's keys is computed.

        Args:
            img: B×3×H×W, ImageNet-normalised; H and W are multiples of the patch size.

        Returns:
            K, B×(blocks·C)×h×w.
        """
        patches: Tensor = self.patch_embed(self.normalization(img))
        h, w = patches.shape[1:3]
        tokens = self._with_position(patches.flatten(1, 2), (h, w))
        blocks = self._blocks_for((h, w))
        keys = []
        for number in range(self.key_blocks[-1]):
            if number in self.key_blocks:
                keys.append(self._keys_only(self.blocks[number], tokens))
            tokens = blocks[number](tokens)
        keys.append(self._keys_only(self.blocks[self.key_blocks[-1]], tokens))
        return torch.cat([k[:, self._n_prefix :] for k in keys], dim=-1).transpose(1, 2).unflatten(2, (h, w))

    def _blocks_for(self, grid: tuple[int, int]) -> Sequence[Callable[[Tensor], Tensor]]:  # noqa: ARG002
        """The blocks as functions of the tokens of a patch grid."""
        return list(self.blocks)

    def _with_position(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Prefix (class, register) and patch tokens with position embeddings, B×N×C → B×(prefix + N)×C."""
        prefix = [
            token.expand(patches.shape[0], -1, -1) for token in (self.cls_token, self.reg_token) if token is not None
        ]
        if self.pos_embed is None:
            return self.norm_pre(torch.cat([*prefix, patches], dim=1))
        n_positioned = self._n_prefix if self._prefix_has_position else 0
        position = resample_position_embedding(self.pos_embed, self._grid_size, grid, n_positioned, self._rule)
        if self._prefix_has_position:
            tokens = torch.cat([*prefix, patches], dim=1) + position
        else:
            tokens = torch.cat([*prefix, patches + position], dim=1)
        return self.norm_pre(tokens)

    def _keys_only(self, block: Any, tokens: Tensor) -> Tensor:
        """A block's keys alone, without queries, values, attention or MLP.

        Blocks before the last compute their keys twice, about 1 % of the backbone's work. A hook on the qkv layer would
        avoid this but break the graph for torch.compile.
        """
        rows = slice(self.embed_dim, 2 * self.embed_dim)
        bias = None if block.attn.qkv.bias is None else block.attn.qkv.bias[rows]
        return F.linear(block.norm1(tokens), block.attn.qkv.weight[rows], bias)


def _resolved_blocks(key_blocks: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    asked = [-3, -2, -1] if key_blocks is None else list(key_blocks)
    resolved = tuple(number + depth if number < 0 else number for number in asked)
    if not resolved or list(resolved) != sorted(set(resolved)) or not 0 <= resolved[0] <= resolved[-1] < depth:
        raise ConfigError(f"key_blocks: {asked} are not ascending block numbers of a model with {depth} blocks")
    return resolved
