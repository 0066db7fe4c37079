import pytest
import timm
import torch
from safetensors.torch import save_file

from conftest import TINY_VIT
from eagle.errors import WeightsError
from eagle.models import weights
from eagle.models.backbone import build_backbone


@pytest.fixture
def state():
    torch.manual_seed(3)
    return build_backbone("vit_small", 8, "random", **TINY_VIT).state_dict()


def test_weights__safetensors_and_pth_give_the_same_model(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        loaded = build_backbone("vit_small", 8, str(tmp_path / name), **TINY_VIT).state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_weights__dinov2_release_names_with_registers(tmp_path):
    """Meta's files have register_tokens, a mask_token and a position embedding for the class token."""
    kwargs = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 56}
    name = "vit_small_patch14_reg4_dinov2"
    torch.manual_seed(0)
    ours = build_backbone(name, pretrained_weights="random", key_blocks=[1], **kwargs).state_dict()
    meta = {key: value for key, value in ours.items() if key not in ("reg_token", "pos_embed", "cls_token")}
    class_position = torch.randn(1, 1, 48)
    meta["register_tokens"] = ours["reg_token"]
    meta["mask_token"] = torch.zeros(1, 48)
    meta["cls_token"] = ours["cls_token"] - class_position
    meta["pos_embed"] = torch.cat([class_position, ours["pos_embed"]], dim=1)
    torch.save(meta, tmp_path / "dinov2.pth")
    loaded = build_backbone(name, 14, str(tmp_path / "dinov2.pth"), key_blocks=[1], **kwargs).state_dict()
    assert all(torch.allclose(loaded[key], ours[key], atol=1e-6) for key in ours)


def meta_dinov3(ours):
    """A rotary backbone's tensors as Meta's DINOv3 files name them, with a qkv bias that is zero, and its mask."""
    names = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    meta = {}
    for key, value in ours.items():
        meta[next((key.replace(old, new) for old, new in names.items() if old in key), key)] = value
    for block in range(2):
        meta[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(3 * 48)
        meta[f"blocks.{block}.attn.qkv.bias_mask"] = torch.full((3 * 48,), torch.nan)
    return meta | {"mask_token": torch.zeros(1, 48), "rope_embed.periods": torch.ones(4)}


TINY_DINOV3 = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 64, "key_blocks": [1]}


def test_weights__dinov3_release_names(tmp_path, capsys):
    """Meta's files have storage_tokens and a qkv bias; the bias of keys is masked, whatever it holds."""
    torch.manual_seed(0)
    ours = build_backbone("vit_small_patch16_dinov3", pretrained_weights="random", **TINY_DINOV3).state_dict()
    meta = meta_dinov3(ours)
    meta["blocks.0.attn.qkv.bias"][48:96] = 3
    torch.save(meta, tmp_path / "dinov3.pth")
    file = str(tmp_path / "dinov3.pth")
    loaded = build_backbone("vit_small_patch16_dinov3", 16, file, **TINY_DINOV3).state_dict()
    assert loaded.keys() == ours.keys()
    assert all(torch.equal(loaded[key], ours[key]) for key in ours)
    assert capsys.readouterr().out == "", "timm prints an error for each bias that a model lacks"
    meta["blocks.1.attn.qkv.bias"][:48] = 2
    torch.save(meta, tmp_path / "dinov3.pth")
    biased = build_backbone("vit_small_patch16_dinov3_qkvb", 16, file, **TINY_DINOV3).state_dict()
    assert (biased["blocks.1.attn.q_bias"] == 2).all()
    with pytest.raises(WeightsError, match=r"dinov3\.pth: does not fit .*_qkvb"):
        build_backbone("vit_small_patch16_dinov3", 16, file, **TINY_DINOV3)


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("eva02_small_patch14_224.mim_in22k", ["fc_norm.weight", "fc_norm.bias"]),
        ("vit_base_patch16_siglip_224.webli", ["attn_pool.q.weight"]),
    ],
)
def test_weights__parts_after_the_last_block_may_be_absent(tmp_path, name, unused):
    kwargs = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    vit = timm.create_model(name, num_classes=0, **kwargs).state_dict()
    torch.save({key: value for key, value in vit.items() if key not in unused}, tmp_path / "w.pth")
    loaded = build_backbone(name, 14, str(tmp_path / "w.pth"), [1], **kwargs).state_dict()
    assert all(torch.equal(loaded[key], vit[key]) for key in loaded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("cls_token"), r"lacks cls_token"),
        (lambda s: s.update(stranger=torch.zeros(1)), r"has an unknown stranger"),
        (lambda s: s.update(cls_token=torch.zeros(1, 1, 7)), r"cls_token is \(1, 1, 7\), not \(1, 1, 48\)"),
    ],
)
def test_weights__tensors_that_do_not_fit_are_named(state, tmp_path, change, message):
    change(state)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"odd\.pth: does not fit .*" + message):
        build_backbone("vit_small", 8, str(tmp_path / "odd.pth"), **TINY_VIT)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights__unreadable_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.\w+: not a readable weights file"):
        build_backbone("vit_small", 8, str(tmp_path / name), **TINY_VIT)


def test_weights__one_architecture_with_several_trainings(monkeypatch, tmp_path):
    """MAE's and supervised models share an architecture with DINO; its downloaded file is not theirs."""
    monkeypatch.setattr(weights, "WEIGHTS_DIR", tmp_path)
    assert weights.download_name("vit_base_patch16_224.dino") == "dino_vitb16"
    assert weights.download_name("vit_base_patch16_224.mae") == "mae_vitb16"
    assert weights.download_name("vit_base_patch16_224.augreg_in21k") is None
    assert weights.download_name("vit_base_patch16_224") is None, "timm's default is not DINO's"
    assert weights.download_name("vit_small_patch14_dinov2") == "dinov2_vits14"


def test_weights__vits8_is_only_the_300_epoch_file(monkeypatch, tmp_path, state):
    """The 800-epoch weights, from timm or saved as dino_vits8.pth by an earlier version, are not used instead."""
    monkeypatch.setattr(weights, "WEIGHTS_DIR", tmp_path)
    monkeypatch.setattr(weights, "timm_state", lambda _name: pytest.fail("asked timm's hub"))
    for name in ("dino_vits8.pth", "dino_vits8_800ep.pth"):
        torch.save(state, tmp_path / name)
    with pytest.raises(WeightsError, match=r"`python download_models\.py models="):
        build_backbone("vit_small", 8, None, **TINY_VIT)
    loaded = build_backbone("vit_small_patch8_224.dino", None, None, **TINY_VIT).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state), "by timm's name the 800-epoch file is meant"
    torch.save(state, tmp_path / "dino_vits8_300ep.pth")
    loaded = build_backbone("vit_small", 8, None, **TINY_VIT).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_weights__dino_training_checkpoint_gives_the_teacher(state, tmp_path):
    teacher = {f"module.backbone.{key}": value for key, value in state.items()}
    teacher["module.head.mlp.0.weight"] = torch.zeros(3)
    student = {key: torch.zeros_like(value) for key, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 3}, tmp_path / "checkpoint.pth")
    loaded = build_backbone("vit_small", 8, str(tmp_path / "checkpoint.pth"), **TINY_VIT).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
