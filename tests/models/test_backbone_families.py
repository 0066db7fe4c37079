"""K of every family in docs/backbones.md equals the keys that hooks see in the forward pass of timm's own model."""

import re

import pytest
import timm
import torch
from torchvision.transforms.functional import normalize as normalized

from conftest import ROOT, TINY_VIT
from eagle.data.views import unnormalize
from eagle.downloads.catalog import MODELS
from eagle.errors import ConfigError
from eagle.models.backbone import build_backbone

WIDTH, BLOCKS = 48, (1, 3)
TINY = {"embed_dim": WIDTH, "depth": 4, "num_heads": 3}
FAMILIES = [
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_base_patch16_dinov3.lvd1689m",
    "vit_base_patch16_224.mae",
    "eva02_small_patch14_224.mim_in22k",
    "eva02_base_patch14_224.mim_in22k",
    "vit_base_patch16_clip_224.openai",
    "vit_base_patch16_siglip_224.webli",
]
# Their rule for position embeddings is not timm's, so DINOv2 equals timm at the stored grid only, and
# tests/models/test_backbone.py compares DINO with recorded values.
DINO, DINOV2 = "vit_small_patch8_224.dino", "vit_small_patch14_dinov2.lvd142m"
# Patch grids: the stored one, wide, tall.
GRIDS = [(4, 4), (2, 5), (7, 3)]


def pair(name, **kwargs):
    """timm's model and our backbone with the same random weights, biases and layer scales."""
    stored = 4 * timm.create_model(name, num_classes=0, **TINY).patch_embed.patch_size[0]
    kwargs = {**TINY, "img_size": stored, **kwargs}
    vit = timm.create_model(name, num_classes=0, dynamic_img_size=True, **kwargs).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    backbone = build_backbone(name, pretrained_weights="random", key_blocks=BLOCKS, **kwargs)
    backbone.load_state_dict({key: vit.state_dict()[key] for key in backbone.state_dict()})
    return vit, backbone


def hooked_keys(vit, img, grid):
    """The inputs of the blocks' key normalisation, an identity in most models: keys before it and before rotation."""
    seen = []
    hooks = [vit.blocks[n].attn.k_norm.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for n in BLOCKS]
    cfg = vit.pretrained_cfg
    with torch.no_grad():
        vit.forward_features(normalized(unnormalize(img), cfg["mean"], cfg["std"]))
    for hook in hooks:
        hook.remove()
    patches = [keys.transpose(1, 2).flatten(2)[:, vit.num_prefix_tokens :] for keys in seen]
    return torch.cat(patches, dim=-1).transpose(1, 2).unflatten(2, grid)


def check(name, grids=GRIDS, **kwargs):
    vit, backbone = pair(name, **kwargs)
    assert backbone.n_feats == len(BLOCKS) * WIDTH
    for grid in grids:
        height, width = (side * backbone.patch_size for side in grid)
        img = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
        keys = backbone(img)
        assert keys.shape == (2, 2 * WIDTH, *grid)
        assert torch.allclose(keys, hooked_keys(vit, img, grid), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*FAMILIES, DINOV2])
def test_family__keys_equal_timms_at_any_size(name):
    check(name, GRIDS[:1] if name == DINOV2 else GRIDS)


@pytest.mark.parametrize(("attention", "fused", "bias"), [("eva", False, True), ("rope", True, False)])
def test_rotary__any_qkv_layer(attention, fused, bias):
    """And keys are those before their normalisation."""
    check("vit_small_patch16_dinov3", attn_type=attention, qkv_fused=fused, qkv_bias=bias, qk_norm=True)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("eva02_enormous_patch14_clip_224", {}),  # normalises after the attention
        ("deit_tiny_distilled_patch16_224", {}),  # a second class token
        ("vit_small_patch16_dinov3", {"attn_type": "rope", "qkv_fused": False, "num_kv_heads": 1}),  # grouped queries
    ],
)
def test_build_backbone__refuses_models_whose_keys_it_would_misread(name, kwargs):
    with pytest.raises(ConfigError, match=f"'{name}' is neither"):
        build_backbone(name, pretrained_weights="random", **TINY, **kwargs)


def test_documentation__lists_the_tested_families():
    """Name, patch size, width, licence and fetch command of each row of docs/backbones.md."""
    page = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")
    row = (
        r"^\| [^|]+ \| `([\w.]+)`[^|]* \| (\d+) \| (\d+) \| ([\w.-]+) "
        r"\| `python download_models.py models=\[(\w+)\]` \|$"
    )
    rows = re.findall(row, page, re.MULTILINE)
    assert {name for name, *_ in rows} == {*FAMILIES, DINO, DINOV2}
    for name, patch_size, width, licence, weights in rows:
        with torch.device("meta"):
            vit = timm.create_model(name, num_classes=0)
        assert (int(patch_size), int(width)) == (vit.patch_embed.patch_size[0], vit.embed_dim)
        assert licence == vit.pretrained_cfg["license"]
        assert MODELS[weights].timm_name == name or weights == "dino_vits8"


def test_normalization__images_reach_imagenet_models_unchanged():
    """Bit for bit: DINO's keys do not go through another arithmetic step."""
    backbone = build_backbone("vit_small", 8, "random", **TINY_VIT)
    img = torch.randn(1, 3, 8, 8)
    assert backbone.normalization(img) is img
    clip = build_backbone("vit_base_patch16_clip_224", pretrained_weights="random", **TINY)
    assert not torch.allclose(clip.normalization(img), img, atol=0.01)
    assert not [name for name in clip.state_dict() if "normalization" in name]
