"""The frozen vision transformer and the attention keys K of its last blocks (docs/method.md §1; paper section 3.1)."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.config.schema import RANDOM_WEIGHTS
from eagle.data.views import IMAGENET_MEAN, IMAGENET_STD
from eagle.errors import ConfigError
from eagle.models.position_embedding import (
    PositionRule,
    dinov3_rotation_for_any_grid,
    position_rule,
    resample_position_embedding,
)
from eagle.models.weights import download_name, load_backbone_weights

# Model types that mean DINO, and its patch sizes.
DINO_TYPES, DINO_PATCH_SIZES = ("vit_small", "vit_base"), (8, 16)


class KeyBackbone(nn.Module):
    """Computes the patch keys K of a frozen plain ViT: always in eval mode, no gradients.

    A key is the output of a block's key projection, before any normalisation of keys and, in a rotary ViT, before the
    rotation, which depends on the patch's position: rotated keys of equal patches would differ. The parameters have
    timm's names, which DINO and the released checkpoints share.

    Args:
        vit: a timm VisionTransformer or Eva, built with ``dynamic_img_size=True``.
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
        self.rope: Any = getattr(vit, "rope", None)
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
        rotation = {} if self.rope is None else {"rope": self._rotation((h, w))}
        keys = []
        for number in range(self.key_blocks[-1]):
            if number in self.key_blocks:
                keys.append(self._keys_only(self.blocks[number], tokens))
            tokens = self.blocks[number](tokens, **rotation)
        keys.append(self._keys_only(self.blocks[self.key_blocks[-1]], tokens))
        return torch.cat([k[:, self._n_prefix :] for k in keys], dim=-1).transpose(1, 2).unflatten(2, (h, w))

    def _rotation(self, grid: tuple[int, int]) -> Tensor:
        """Rotary position embedding of a patch grid."""
        if torch.compiler.is_exporting() and hasattr(self.rope, "periods"):
            return dinov3_rotation_for_any_grid(grid, self.rope.periods)
        return self.rope.get_embed(shape=grid)

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
        if getattr(block.attn, "k_proj", None) is not None:
            return block.attn.k_proj(block.norm1(tokens))
        # EVA's qkv layer has no bias; the key's bias, a buffer outside it, is always zero.
        rows = slice(self.embed_dim, 2 * self.embed_dim)
        bias = None if block.attn.qkv.bias is None else block.attn.qkv.bias[rows]
        return F.linear(block.norm1(tokens), block.attn.qkv.weight[rows], bias)


class Renormalize(nn.Module):
    """Replaces ImageNet's mean and standard deviation by others.

    Its constants are not part of the state dict, so a backbone's state dict holds timm's names alone.

    Args:
        mean: the new mean of each channel, for images in [0, 1].
        std: the new standard deviation of each channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        old_mean, old_std, new_mean, new_std = (
            torch.tensor(statistic)[:, None, None] for statistic in (IMAGENET_MEAN, IMAGENET_STD, mean, std)
        )
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", old_std / new_std, persistent=False)
        self.register_buffer("shift", (old_mean - new_mean) / new_std, persistent=False)

    def forward(self, img: Tensor) -> Tensor:
        """Renormalise B×3×H×W images."""
        return img * self.scale + self.shift


def build_backbone(
    model_type: str = "vit_small",
    patch_size: int = 8,
    pretrained_weights: str | None = None,
    key_blocks: Sequence[int] | None = None,
    **timm_kwargs: Any,
) -> KeyBackbone:
    """Build the frozen backbone and load its weights.

    Args:
        model_type: ``vit_small`` or ``vit_base`` for DINO with ``patch_size``, or a timm model name, which fixes the
            patch size.
        patch_size: 8 or 16, for DINO only.
        pretrained_weights: None for the model's own weights, a .pth or .safetensors file, or "random".
        key_blocks: blocks whose keys form K; None for the last three.
        timm_kwargs: further arguments of ``timm.create_model``.

    Raises:
        ConfigError: unknown model, patch size or blocks, or a model whose keys cannot be read.
        WeightsError: the weights are missing, unreadable or do not fit.

    Example:
        >>> import torch
        >>> from eagle import build_backbone
        >>> backbone = build_backbone("vit_small", 8, "random", embed_dim=48, depth=4, num_heads=3)
        >>> backbone(torch.zeros(2, 3, 64, 96)).shape  # three blocks of 48 channels, 8×12 patches
        torch.Size([2, 144, 8, 12])
    """
    name, weights_name = timm_name(model_type, patch_size)
    vit = _create_vit(name, timm_kwargs)
    if pretrained_weights != RANDOM_WEIGHTS:
        load_backbone_weights(vit, name, pretrained_weights, weights_name)
    statistics = tuple(vit.pretrained_cfg["mean"]), tuple(vit.pretrained_cfg["std"])
    normalization = nn.Identity() if statistics == (IMAGENET_MEAN, IMAGENET_STD) else Renormalize(*statistics)
    # A name without a tag means timm's default weights, which may be DINO's.
    rule = position_rule(f"{name.partition('.')[0]}.{vit.pretrained_cfg['tag']}")
    return KeyBackbone(vit, key_blocks, rule, normalization)


def timm_name(model_type: str, patch_size: int) -> tuple[str, str | None]:
    """The timm name of a backbone, and the name of its weights in ``download_models.py`` (None if not offered there).

    Raises:
        ConfigError: DINO does not have this patch size.
    """
    if model_type not in DINO_TYPES:
        return model_type, download_name(model_type)
    if patch_size not in DINO_PATCH_SIZES:
        raise ConfigError(f"dino_patch_size: DINO's {model_type} has patch sizes 8 and 16, not {patch_size}")
    name = f"{model_type}_patch{patch_size}_224.dino"
    # By this name the 300-epoch weights of the released code are meant, which timm does not have.
    return name, "dino_vits8" if (model_type, patch_size) == ("vit_small", 8) else download_name(name)


def _create_vit(name: str, timm_kwargs: dict[str, Any]) -> Any:
    """A timm VisionTransformer or Eva whose blocks' keys KeyBackbone can read."""
    if not timm.is_model(name.split(".")[0]):
        near = timm.list_models(f"*{name.split('.')[0]}*")[:3]
        raise ConfigError(
            f"model_type: timm has no model '{name}'" + (f"; similar names: {', '.join(near)}" if near else "")
        )
    try:
        vit = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True, **timm_kwargs)
    except (TypeError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"model_type: timm cannot build '{name}' with {timm_kwargs}: {error}") from error
    if not (_is_plain(vit) or _is_rotary(vit)):
        raise ConfigError(
            f"model_type: '{name}' is neither a plain ViT with position embeddings nor a rotary ViT, with a key of the "
            "model's width per patch; docs/backbones.md lists the supported families"
        )
    return vit


# Exact types: subclasses and other blocks normalise after the attention, or have more tokens or no single key layer.
def _is_plain(vit: Any) -> bool:
    return type(vit) is VisionTransformer and type(vit.blocks[0]) is Block and vit.pos_embed is not None


def _is_rotary(vit: Any) -> bool:
    if type(vit) is not Eva or type(vit.blocks[0]) is not EvaBlock or vit.rope is None or vit.rope_mixed:
        return False
    blocks: Any = vit.blocks
    separate = [block.attn.k_proj for block in blocks if block.attn.k_proj is not None]
    # With grouped queries, keys are narrower than tokens.
    return all(layer.out_features == vit.embed_dim for layer in separate)


def _resolved_blocks(key_blocks: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    asked = [-3, -2, -1] if key_blocks is None else list(key_blocks)
    resolved = tuple(number + depth if number < 0 else number for number in asked)
    if not resolved or list(resolved) != sorted(set(resolved)) or not 0 <= resolved[0] <= resolved[-1] < depth:
        raise ConfigError(f"key_blocks: {asked} are not ascending block numbers of a model with {depth} blocks")
    return resolved
