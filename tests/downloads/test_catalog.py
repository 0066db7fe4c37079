import pytest
import timm

from eagle.downloads.catalog import DINO_URL, MODELS, local_weights


def test_models__public_addresses_are_the_ones_timm_knows():
    public = {name: model for name, model in MODELS.items() if model.public_path}
    assert len(public) == 10
    # timm does not have the 300-epoch file.
    assert str(public.pop("dino_vits8").public_path).endswith("/dino_deitsmall8_300ep_pretrain.pth")
    for model in public.values():
        assert model.address() == f"{DINO_URL}/{model.public_path}" == timm.get_pretrained_cfg(model.timm_name).url


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("dino_vits8", "dino_vits8_300ep.pth"),
        ("dino_vits8_800ep", "dino_vits8_800ep.safetensors"),
        ("eagle_cocostuff_vits8", "EAGLE_COCO_ViTS8.ckpt"),
    ],
)
def test_local_weights__finds_the_file_and_no_other(tmp_path, name, file):
    for other in (f"{file}.fetched12345678.part", "dino_vits8.pth", "dinov2_vits14.pth"):
        (tmp_path / other).write_text("other")  # dino_vits8.pth of an earlier version has 800 epochs
    assert local_weights(tmp_path, name) is None
    (tmp_path / file).write_text("whole")
    assert local_weights(tmp_path, name) == tmp_path / file
