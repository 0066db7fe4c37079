import torch

from conftest import TINY_VIT
from eagle.models.backbone import build_backbone
from eagle.models.key_cache import KeyCache


def test_key_cache__gives_the_backbones_keys_and_asks_once():
    backbone = build_backbone("vit_small", 8, "random", **TINY_VIT)
    passes = []
    backbone.register_forward_pre_hook(lambda _m, args: passes.append(len(args[0])))
    images = torch.randn(4, 3, 32, 32)
    cache = KeyCache(backbone)
    first = cache(images[:3], torch.tensor([0, 1, 2]))
    second = cache(images[[2, 3, 0]], torch.tensor([2, 3, 0]))
    assert passes == [3, 1]
    expected = backbone(images)
    assert torch.allclose(first, expected[:3], atol=2e-3)
    assert torch.allclose(second, expected[[2, 3, 0]], atol=2e-3)
