import os
import random
import signal
import subprocess
import sys
import time

import gdown
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from conftest import ROOT
from eagle.downloads import fetching
from eagle.downloads.catalog import MODELS, local_weights
from eagle.downloads.fetching import fetch_file, fetch_model
from eagle.errors import DownloadError
from local_server import served
from test_full_disks import mounted

CHUNK = gdown.download.__globals__["CHUNK_SIZE"]
CONTENT = np.random.default_rng(0).bytes(5 * CHUNK + 1000)
LOG_IN = b"\n <!DOCTYPE html><title>Log in</title>"


@pytest.fixture(autouse=True)
def _no_proxy_and_no_pause(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(random, "uniform", lambda *_: 0)  # gdown waits so long before it tries again


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "file.bin"


def assert_whole(target):
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def assert_refused(url, target, *parts):
    """The error is one line, and the file does not get its name."""
    with pytest.raises(DownloadError) as error:
        fetch_file(url, target)
    assert "\n" not in str(error.value)
    assert [part for part in parts if part not in str(error.value)] == []
    assert not target.exists()


def partial_file(target):
    [part] = target.parent.glob("file.bin.fetched????????.part")
    return part


def test_fetch_file__whole_file_once(target, capsys):
    with served({"f": CONTENT}) as (url, server):
        for _ in range(2):
            assert fetch_file(f"{url}/f", target) == target
        assert len(server.requests) == 1
    assert_whole(target)
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("send_length", [True, False])
def test_fetch_file__killed_process_is_resumed(target, send_length):
    code = "import sys; from eagle.downloads.fetching import fetch_file; fetch_file(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src_EAGLE")}
    with served({"f": CONTENT}, pause_per_chunk=0.02, send_length=send_length) as (url, server):
        command = [sys.executable, "-c", code, f"{url}/f", str(target)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 60
        while not any(path.stat().st_size for path in target.parent.glob("file*")) and time.monotonic() < give_up:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = partial_file(target).stat().st_size
        assert 0 < kept < len(CONTENT)
        assert not target.exists()
        server.pause_per_chunk = 0
        subprocess.run(command, env=environment, check=True, capture_output=True)
    assert_whole(target)
    assert server.asked_ranges[-1] == f"bytes={kept}-"


def test_fetch_file__goes_on_after_a_cut(target):
    with served({"f": CONTENT}, cuts=1, cut_after=2 * CHUNK) as (url, server):
        fetch_file(f"{url}/f", target)
    assert_whole(target)
    assert [asked for asked in server.asked_ranges if asked] == [f"bytes={2 * CHUNK}-"]


def test_fetch_file__a_server_that_cannot_go_on_or_shows_its_log_in_page_leaves_the_partial_file(target):
    """The message names the file: without it the transfer starts again."""
    with served({"f": CONTENT}, cuts=1, cut_after=CHUNK, ranges=False) as (url, _):
        assert_refused(f"{url}/f", target, f"{url}/f: ", "run the command again", ".part to start from the beginning")
    part = partial_file(target)
    with served({"f": LOG_IN}, ranges=False) as (url, _):
        assert_refused(f"{url}/f", target, str(part))
    assert part.read_bytes() == CONTENT[:CHUNK]
    part.unlink()
    with served({"f": CONTENT}, ranges=False) as (url, _):
        fetch_file(f"{url}/f", target)
    assert_whole(target)


def test_fetch_file__log_in_page_in_place_of_the_file_is_deleted(target):
    with served({"f": LOG_IN}, ranges=False) as (url, server):
        assert_refused(f"{url}/f", target, f"{url}/f", "is an HTML page")
        assert len(server.requests) == 1
    assert list(target.parent.iterdir()) == []


def test_fetch_file__refused_silent_absent_and_invalid_addresses_are_one_line(target, monkeypatch):
    with served({"f": CONTENT}, status=403) as (url, server):
        assert_refused(f"{url}/f", target, f"{url}/f", "403", f"with a browser as {target}")
        assert len(server.requests) == 1
    assert_refused(f"{url}/f", target, f"{url}/f", "Connection refused")
    monkeypatch.setattr(fetching, "TIMEOUT", 0.2)
    with served({"f": CONTENT}, delay=1.0) as (url, _):
        assert_refused(f"{url}/f", target, "timed out")
    for url in ("file:///etc/passwd", "f.zip", "http://host:port/f"):
        assert_refused(url, target, url)


@pytest.mark.parametrize(("send_length", "reason"), [(True, "are free; make room"), (False, "No space left on device")])
def test_fetch_file__full_disk(tmp_path, send_length, reason):
    with mounted(tmp_path / "full", "size=1m") as full, served({"f": CONTENT}, send_length=send_length) as (url, _):
        assert_refused(f"{url}/f", full / "file.bin", str(full), reason)


def test_fetch_file__google_drives_refusal_is_one_line(target, monkeypatch):
    asked = []

    def refuse(url, *_, **__):
        asked.append(url)
        raise gdown.FileURLRetrievalError("Cannot retrieve:\n\n\ttoo many\n\taccesses")

    monkeypatch.setattr(gdown, "download", refuse)
    address = MODELS["eagle_cocostuff_vits8"].address()
    assert_refused(address, target, address, "too many accesses", f"with a browser as {target}")
    assert gdown.parse_url.parse_url(asked[0]) == ("1fRZB_Tx2cZn5XayY0MiC9gv6D9kML7lh", True)


@pytest.fixture
def hub(monkeypatch):
    """Replace timm's hub; yields the requested models."""
    asked = []

    def create(name, pretrained, num_classes):
        asked.append(name)
        return torch.nn.Linear(2, 3)

    monkeypatch.setattr(timm, "create_model", create)
    return asked


@pytest.fixture
def no_hub(monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError("no connection\nto the hub")

    monkeypatch.setattr(timm, "create_model", fail)


def test_fetch_model__public_address_first_timms_hub_second(tmp_path, hub):
    with served({MODELS["dino_vits8"].public_path: b"weights"}) as (url, server):
        for _ in range(2):
            path = fetch_model("dino_vits8", tmp_path, f"{url}/")
        assert path == local_weights(tmp_path, "dino_vits8") == tmp_path / "dino_vits8_300ep.pth"
        assert len(server.requests) == 1
        assert (path.read_bytes(), hub) == (b"weights", [])
        path = fetch_model("dino_vitb8", tmp_path, url)
    assert path == local_weights(tmp_path, "dino_vitb8") == tmp_path / "dino_vitb8.safetensors"
    assert hub == ["vit_base_patch8_224.dino"]
    assert {name: tuple(tensor.shape) for name, tensor in load_file(path).items()} == {"weight": (3, 2), "bias": (3,)}


def test_fetch_model__no_source_names_every_reason(tmp_path, no_hub):
    with served({}) as (url, _), pytest.raises(DownloadError, match=r"404.*no connection to the hub") as error:
        fetch_model("dino_vitb8", tmp_path, url)
    assert url in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_fetch_model__dinov3_that_cannot_be_reached_names_its_licence(tmp_path, no_hub):
    with pytest.raises(DownloadError, match=r"licence.*docs/backbones\.md"):
        fetch_model("dinov3_vits16", tmp_path)
