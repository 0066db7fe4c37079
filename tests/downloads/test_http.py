import functools
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from eagle.downloads.http import download
from eagle.errors import DownloadError
from local_server import served

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCES = Path(__file__).resolve().parents[2] / "src_EAGLE"

quick = functools.partial(download, backoff=0.01, timeout=5.0)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "file.bin"


def assert_whole(target):
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_download__whole_file(target):
    with served({"f": CONTENT}) as (url, server):
        assert quick(f"{url}/f", target, size=len(CONTENT), sha256=SHA256) == target
        assert_whole(target)
        assert quick(f"{url}/f", target, size=len(CONTENT), sha256=SHA256) == target
    assert len(server.requests) == 1


def test_download__damaged_existing_file_is_replaced(target):
    target.parent.mkdir()
    target.write_bytes(b"short")
    with served({"f": CONTENT}) as (url, _):
        quick(f"{url}/f", target, size=len(CONTENT))
    assert_whole(target)


def test_download__existing_file_survives_a_failed_replacement(target):
    target.parent.mkdir()
    target.write_bytes(b"short")
    with served({}) as (url, _), pytest.raises(DownloadError):
        quick(f"{url}/f", target, size=len(CONTENT))
    assert target.read_bytes() == b"short"


def test_download__resumes_after_interruptions(target):
    with served({"f": CONTENT}, cuts=7, cut_after=40_000) as (url, server):
        quick(f"{url}/f", target, sha256=SHA256, retries=1)
    assert_whole(target)
    assert server.asked_ranges == [None] + [f"bytes={40_000 * n}-" for n in range(1, 8)]


def test_download__restarts_if_the_server_ignores_ranges(target):
    with served({"f": CONTENT}, cuts=2, cut_after=40_000, ranges=False) as (url, server):
        quick(f"{url}/f", target, sha256=SHA256)
    assert_whole(target)
    assert len(server.requests) == 3


def test_download__repeated_interruptions_fail_and_keep_the_partial_file(target):
    with served({"f": CONTENT}, cuts=10**6, cut_after=40_000, ranges=False) as (url, server):
        with pytest.raises(DownloadError) as error:
            quick(f"{url}/f", target, retries=2)
        assert len(server.requests) == 3
    assert_one_line(error, f"{url}/f", f"40000 of {len(CONTENT)} bytes", "run the command again")
    assert not target.exists()
    assert (target.parent / "file.bin.part").read_bytes() == CONTENT[:40_000]


def test_download__content_length_too_large_is_settled_by_416(target):
    with served({"f": CONTENT}, length_excess=100) as (url, server):
        quick(f"{url}/f", target, sha256=SHA256)
    assert_whole(target)
    assert server.asked_ranges == [None, f"bytes={len(CONTENT)}-"]


def test_download__content_length_too_large_without_ranges_fails(target):
    with served({"f": CONTENT}, length_excess=100, ranges=False) as (url, _), pytest.raises(DownloadError) as error:
        quick(f"{url}/f", target, retries=1)
    assert_one_line(error, f"{len(CONTENT)} of {len(CONTENT) + 100} bytes")
    assert not target.exists()


def test_download__content_length_too_small_is_caught_by_the_size(target):
    with served({"f": CONTENT}, length_excess=-100) as (url, server):
        with pytest.raises(DownloadError) as error:
            quick(f"{url}/f", target, size=len(CONTENT))
        assert len(server.requests) == 1
    assert_one_line(error, f"{len(CONTENT) - 100} bytes instead of {len(CONTENT)}")
    assert not target.exists()


def test_download__no_content_length(target):
    with served({"f": CONTENT}, send_length=False) as (url, _):
        quick(f"{url}/f", target, size=len(CONTENT))
    assert_whole(target)


def test_download__416_on_a_partial_file_that_is_too_long_restarts(target):
    target.parent.mkdir()
    (target.parent / "file.bin.part").write_bytes(bytes(len(CONTENT) + 5))
    with served({"f": CONTENT}) as (url, server):
        quick(f"{url}/f", target, sha256=SHA256)
    assert_whole(target)
    assert server.asked_ranges == [f"bytes={len(CONTENT) + 5}-", None]


def test_download__changed_file_is_not_appended_to_old_bytes(target):
    old = bytes(len(CONTENT))
    with served({"f": old}, cuts=1, cut_after=40_000) as (url, server):
        with pytest.raises(DownloadError):
            quick(f"{url}/f", target, retries=0)
        server.files["f"] = CONTENT
        quick(f"{url}/f", target)
    assert server.asked_ranges == [None, "bytes=40000-"]
    assert_whole(target)


def test_download__wrong_range_restarts(target):
    with served({"f": CONTENT}, cuts=1, cut_after=40_000, wrong_range=True) as (url, server):
        quick(f"{url}/f", target, sha256=SHA256)
    assert_whole(target)
    assert server.asked_ranges == [None, "bytes=40000-", None]


@pytest.mark.parametrize(
    ("page", "content_type"),
    [
        (b"anything", "text/html; charset=utf-8"),
        (b"\n <!DOCTYPE html><title>Log in</title>", "application/zip"),
        (b"\xef\xbb\xbf<HTML>", "application/zip"),
    ],
)
def test_download__html_page_instead_of_the_file(target, page, content_type):
    with served({"f": page}, content_type=content_type) as (url, server):
        with pytest.raises(DownloadError) as error:
            quick(f"{url}/f", target)
        assert len(server.requests) == 1
    assert_one_line(error, f"{url}/f", "HTML page")
    assert list(target.parent.iterdir()) == []


def test_download__html_page_keeps_the_partial_file(target):
    target.parent.mkdir()
    part = target.parent / "file.bin.part"
    part.write_bytes(CONTENT[:1000])
    with served({"f": b"<html>"}, ranges=False) as (url, _), pytest.raises(DownloadError, match="HTML page"):
        quick(f"{url}/f", target)
    assert part.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_download__transient_failures_are_retried(target, status):
    with served({"f": CONTENT}, failures=[status, status]) as (url, server):
        quick(f"{url}/f", target)
    assert_whole(target)
    assert len(server.requests) == 3


def test_download__pauses_double(target, monkeypatch):
    pauses = []
    monkeypatch.setattr("eagle.downloads.http.time.sleep", pauses.append)
    with served({"f": CONTENT}, failures=[500] * 9) as (url, _), pytest.raises(DownloadError, match="500"):
        download(f"{url}/f", target, retries=7)
    assert [pause for pause in pauses if pause] == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_download__permanent_failures_are_not_retried(target, status):
    with served({"f": CONTENT}, failures=[status]) as (url, server):
        with pytest.raises(DownloadError) as error:
            quick(f"{url}/f", target)
        assert len(server.requests) == 1
    assert_one_line(error, f"{url}/f", str(status))


def test_download__slow_start(target):
    with served({"f": CONTENT}, delays=[0.3]) as (url, server):
        quick(f"{url}/f", target)
    assert_whole(target)
    assert len(server.requests) == 1


def test_download__silent_server_is_retried(target):
    with served({"f": CONTENT}, delays=[1.0]) as (url, server):
        quick(f"{url}/f", target, timeout=0.3)
    assert_whole(target)
    assert len(server.requests) == 2


def test_download__connection_refused(target):
    with served({}) as (url, _):
        pass
    with pytest.raises(DownloadError) as error:
        quick(f"{url}/f", target, retries=1)
    assert_one_line(error, f"{url}/f", "refused", "check the connection")


def test_download__wrong_digest_leaves_nothing(target):
    with served({"f": CONTENT}) as (url, _), pytest.raises(DownloadError) as error:
        quick(f"{url}/f", target, sha256="0" * 64)
    assert_one_line(error, f"{url}/f", "SHA-256", "0" * 64)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/f", "f.zip", "http://host:port/f", "http://[/f"])
def test_download__invalid_address(target, url):
    with pytest.raises(DownloadError, match="address"):
        quick(url, target, retries=0)


def test_download__folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError) as error:
        quick("http://127.0.0.1/f", tmp_path / "file" / "f")
    assert_one_line(error, str(tmp_path / "file" / "f"), "cannot be written")


def test_download__more_than_the_disk_holds(target, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("eagle.downloads.http.shutil.disk_usage", lambda _: usage)
    with served({"f": CONTENT}) as (url, _), pytest.raises(DownloadError) as error:
        quick(f"{url}/f", target)
    assert_one_line(error, "1000 are free", str(len(CONTENT)))


def test_download__killed_process_is_resumed(target):
    code = "import sys; from eagle.downloads.http import download; download(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    part = target.parent / "file.bin.part"
    with served({"f": CONTENT}, chunk=20_000, pause_per_chunk=0.1) as (url, server):
        command = [sys.executable, "-c", code, f"{url}/f", str(target)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size >= 60_000) and time.monotonic() < give_up:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = part.stat().st_size
        assert 60_000 <= kept < len(CONTENT)
        assert not target.exists()
        server.pause_per_chunk = 0
        subprocess.run(command, env=environment, check=True, capture_output=True)
    assert_whole(target)
    assert server.asked_ranges == [None, f"bytes={kept}-"]
