"""Build the frozen backbone that a configuration names, with its weights."""

from collections.abc import Sequence
from typing import Any

import timm
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer

from eagle.config.schema import RANDOM_WEIGHTS
from eagle.errors import ConfigError
from eagle.models.backbone import KeyBackbone
from eagle.models.normalization import renormalization
from eagle.models.position_embedding import position_rule
from eagle.models.rotary_backbone import RotaryBackbone
from eagle.models.weights import download_name, load_backbone_weights

# (model_type, dino_patch_size): timm name of the architecture, name of the weights in eagle.downloads.catalog.MODELS.
DINO_NAMES = {
    ("vit_small", 8): ("vit_small_patch8_224.dino", "dino_vits8"),
    ("vit_small", 16): ("vit_small_patch16_224.dino", "dino_vits16"),
    ("vit_base", 8): ("vit_base_patch8_224.dino", "dino_vitb8"),
    ("vit_base", 16): ("vit_base_patch16_224.dino", "dino_vitb16"),
}


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
    backbone = RotaryBackbone if isinstance(vit, Eva) else KeyBackbone
    normalization = renormalization(vit.pretrained_cfg["mean"], vit.pretrained_cfg["std"])
    return backbone(vit, key_blocks, position_rule(name), normalization)


def timm_name(model_type: str, patch_size: int) -> tuple[str, str | None]:
    """The timm name of a backbone, and the name of its weights in ``download_models.py`` (None if not offered there).

    Raises:
        ConfigError: DINO does not have this patch size.
    """
    if model_type not in {family for family, _ in DINO_NAMES}:
        return model_type, download_name(model_type)
    if (model_type, patch_size) not in DINO_NAMES:
        raise ConfigError(f"dino_patch_size: DINO's {model_type} has patch sizes 8 and 16, not {patch_size}")
    return DINO_NAMES[model_type, patch_size]


def _create_vit(name: str, timm_kwargs: dict[str, Any]) -> Any:
    """A timm VisionTransformer or Eva whose blocks' keys KeyBackbone or RotaryBackbone can read."""
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
