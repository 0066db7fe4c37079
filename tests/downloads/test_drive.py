from pathlib import Path

import gdown
import pytest

from eagle.downloads.drive import download_from_drive
from eagle.errors import DownloadError

ID = "1abc"


def pretend(monkeypatch, content=None, error=None):
    """Replace gdown, which would use the network; return the recorded calls."""
    calls = []

    def fake(**arguments):
        calls.append(arguments)
        if content is not None:
            Path(arguments["output"]).write_bytes(content)
        if error is not None:
            raise error

    monkeypatch.setattr(gdown, "download", fake)
    return calls


def test_drive__complete_file_gets_its_name(tmp_path, monkeypatch):
    calls = pretend(monkeypatch, b"weights")
    target = tmp_path / "new" / "model.ckpt"
    assert download_from_drive(ID, target, size=7) == target
    assert target.read_bytes() == b"weights"
    assert list(target.parent.iterdir()) == [target]
    assert calls[0]["id"] == ID
    assert calls[0]["output"] != str(target)
    download_from_drive(ID, target)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("content", "size", "reason"),
    [
        (b"<!DOCTYPE html><title>Quota exceeded</title>", None, "HTML page"),
        (b"half", 8, "4 bytes instead of 8"),
        (None, None, "sent no file"),
    ],
)
def test_drive__unexpected_content_is_an_error(tmp_path, monkeypatch, content, size, reason):
    pretend(monkeypatch, content)
    with pytest.raises(DownloadError, match=reason) as error:
        download_from_drive(ID, tmp_path / "model.ckpt", size=size)
    assert ID in str(error.value)
    assert not (tmp_path / "model.ckpt").exists()


def test_drive__refusal_is_one_line_and_keeps_the_partial_file(tmp_path, monkeypatch):
    pretend(monkeypatch, b"half", RuntimeError("Cannot retrieve:\n\n\ttoo many\n\taccesses"))
    with pytest.raises(DownloadError) as error:
        download_from_drive(ID, tmp_path / "model.ckpt")
    message = str(error.value)
    assert "\n" not in message
    assert "too many accesses" in message
    assert f"https://drive.google.com/uc?id={ID}" in message
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["model.ckpt"]
    assert not (tmp_path / "model.ckpt").is_file()


def test_drive__failure_without_bytes_leaves_no_folder(tmp_path, monkeypatch):
    pretend(monkeypatch, None, ConnectionError("no network"))
    with pytest.raises(DownloadError, match="no network"):
        download_from_drive(ID, tmp_path / "model.ckpt")
    assert list(tmp_path.iterdir()) == []
