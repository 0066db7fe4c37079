import pytest
import torch
from torch.nn import functional as F

from conftest import TINY_VIT
from eagle.errors import ConfigError
from eagle.models.backbone import build_backbone

SIZES = ["112x112", "96x128", "56x224"]


@pytest.fixture
def golden_backbone(golden):
    backbone = build_backbone("vit_small", 8, "random", **TINY_VIT)
    backbone.load_state_dict(golden.tensors("vit_golden_state"))
    return backbone


@pytest.mark.parametrize("size", SIZES)
def test_backbone__released_keys(golden, golden_backbone, size):
    data = golden.tensors(f"a_dino_{size}")
    keys = golden_backbone(data["img"])
    assert keys.shape == data["kk"].shape
    assert (keys - data["kk"]).norm() / data["kk"].norm() < 1e-4


def test_backbone__computes_nothing_after_the_last_keys(golden_backbone):
    last = golden_backbone.blocks[-1]
    for part in (last.attn.proj, last.mlp.fc1, last.norm2, golden_backbone.norm):
        part.register_forward_hook(lambda *_: pytest.fail("computed a part that K does not need"))
    last.attn.qkv.register_forward_hook(lambda *_: pytest.fail("computed queries and values of the last block"))
    golden_backbone(torch.zeros(1, 3, 16, 16))


def test_position_embedding__of_a_name_without_tag_follows_the_weights_that_it_means():
    img = torch.randn(1, 3, 32, 48)
    backbones = [
        build_backbone(f"vit_small_patch8_224{tag}", pretrained_weights="random", **TINY_VIT) for tag in ("", ".dino")
    ]
    backbones[1].load_state_dict(backbones[0].state_dict())
    assert torch.equal(*(backbone.eval()(img) for backbone in backbones))


def test_position_embedding__dinov2_is_a_plain_resize():
    name, kwargs = "vit_small_patch14_dinov2", {"embed_dim": 48, "depth": 1, "num_heads": 3, "img_size": 56}
    backbone = build_backbone(name, pretrained_weights="random", key_blocks=[0], **kwargs)
    patches = torch.zeros(1, 15, 48)
    tokens = backbone._with_position(patches, (3, 5))
    grid = backbone.pos_embed[:, 1:].reshape(1, 4, 4, 48).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(3, 5), mode="bicubic").flatten(2).transpose(1, 2)
    assert torch.allclose(tokens[:, 1:], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_type": "vit_small", "patch_size": 14}, "8 and 16, not 14"),
        ({"model_type": "resnet18"}, "resnet18"),
        ({"key_blocks": [9], **TINY_VIT}, "4 blocks"),
    ],
)
def test_build_backbone__bad_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_backbone(pretrained_weights="random", **arguments)


def test_backbone__stays_frozen_and_in_eval_mode(golden_backbone):
    golden_backbone.train()
    assert not any(module.training for module in golden_backbone.modules())
    assert not any(parameter.requires_grad for parameter in golden_backbone.parameters())
