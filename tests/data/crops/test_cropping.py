"""crop_datasets.py, called in this process, and training on its crops."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

import crop_datasets as command
from eagle.config.command_line import parse_command_line
from eagle.config.schema import DatasetConfig
from eagle.config.validation import validated
from eagle.data.datasets.catalog import open_dataset, open_whole_dataset
from eagle.errors import ConfigError, DataError
from miniatures import WRITERS, picture, save, write_cityscapes, write_cocostuff, write_directory

SOURCES = Path(command.__file__).parent
FIVE = "cropped/cityscapes_five_crop_0.5"


def crop(data_dir, *arguments):
    words = [f"pytorch_data_dir={data_dir}", "num_processes=1", *arguments]
    command.crop_datasets(parse_command_line(command.CropConfig, words))


def config(data_dir, **keys):
    return validated(DatasetConfig, {"pytorch_data_dir": str(data_dir), "crop_type": "five", **keys})


def files_in(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def as_jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["cocostuff27", "cocostuff3", "cityscapes", "potsdam", "directory"])
def test_five__numbers_pixels_and_labels(tmp_path, name):
    WRITERS[name](tmp_path)
    keys = {"dataset_name": name, "dir_dataset_name": "mine" if name == "directory" else None}
    crop(tmp_path, *(f"{key}={value}" for key, value in keys.items() if value))
    folder = tmp_path / "cropped" / f"{'mine' if name == 'directory' else name}_five_crop_0.5"
    for split in ("train", "val"):
        whole = open_whole_dataset(config(tmp_path, **keys), split)
        stored = {path.name for path in (folder / "img" / split).iterdir()}
        assert stored == {f"{i}.jpg" for i in range(5 * len(whole))}
        for index in range(len(whole)):
            label = Image.fromarray(whole.label(index))
            pairs = zip(F.five_crop(whole.image(index), [24, 30]), F.five_crop(label, [24, 30]), strict=True)
            for number, (image, label) in enumerate(pairs, 5 * index):
                assert (folder / f"img/{split}/{number}.jpg").read_bytes() == as_jpeg(image), (
                    "Pillow's defaults, as in the released code"
                )
                written = np.asarray(Image.open(folder / f"label/{split}/{number}.png"))
                np.testing.assert_array_equal(written, np.asarray(label) + 1)


@pytest.mark.parametrize(("ratio", "size"), [("0.3", (18, 14)), ("1", (60, 48))])
def test_ratio__size_and_folder(tmp_path, ratio, size):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes", f"crop_ratio={ratio}", "splits=val")
    folder = tmp_path / f"cropped/cityscapes_five_crop_{float(ratio)}"
    assert {Image.open(path).size for path in folder.rglob("*.jpg")} == {size}
    assert not (folder / "img/train").exists()


def test_random__depends_on_seed_only(tmp_path):
    trees = []
    for run, (seed, processes) in enumerate([(0, 1), (0, 2), (1, 1)]):
        data_dir = tmp_path / str(run)
        write_cityscapes(data_dir)
        arguments = ["dataset_name=cityscapes", "crop_type=random", f"seed={seed}", f"num_processes={processes}"]
        crop(data_dir, *arguments)
        trees.append(files_in(data_dir / "cropped/cityscapes_random_crop_0.5"))
    same, other = trees[1:]
    assert trees[0] == same
    assert trees[0].keys() == other.keys()
    assert sum(trees[0][name] != other[name] for name in other) > 30
    train, val = ([digest for name, digest in same.items() if name.startswith(f"label/{s}")] for s in ("train", "val"))
    assert len({*train}) > 5
    assert set(train) != set(val)


def test_list_of_datasets__one_folder_each(tmp_path):
    write_cityscapes(tmp_path)
    write_cocostuff(tmp_path)
    crop(tmp_path, "dataset_name=[cityscapes,cocostuff15]", "splits=[train]")
    names = sorted(path.name for path in (tmp_path / "cropped").iterdir())
    assert names == ["cityscapes_five_crop_0.5", "cocostuff15_five_crop_0.5"]


def test_list_of_datasets__missing_one_raises_before_cropping(tmp_path):
    write_cityscapes(tmp_path)
    with pytest.raises(DataError, match="datasets=\\[potsdam\\]"):
        crop(tmp_path, "dataset_name=[cityscapes,potsdam]")
    assert not (tmp_path / "cropped").exists()


def test_jpeg__other_settings_are_used_and_training_warns(tmp_path, caplog):
    write_cityscapes(tmp_path)
    better = ["dataset_name=cityscapes", "splits=train", "jpeg_quality=95", "jpeg_subsampling=4:4:4"]
    crop(tmp_path, *better)
    image = open_whole_dataset(config(tmp_path, dataset_name="cityscapes"), "train").image(0)
    first = tmp_path / FIVE / "img/train/0.jpg"
    assert first.read_bytes() == as_jpeg(image.crop((0, 0, 30, 24)), quality=95, subsampling="4:4:4")
    open_dataset(config(tmp_path, dataset_name="cityscapes"), "train")
    expected = "have JPEG quality 95, subsampling 4:4:4; the released runs used JPEG quality 75, subsampling 4:2:0"
    assert expected in caplog.text


def test_jpeg__old_manifest_means_no_subsampling(tmp_path, caplog):
    """Manifests without jpeg_subsampling are older; their crops were not subsampled."""
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes", "jpeg_quality=95", "jpeg_subsampling=4:4:4")
    path = tmp_path / FIVE / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["parameters"]["jpeg_subsampling"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"jpeg_quality 95 instead of 75, jpeg_subsampling 4:4:4 instead of 4:2:0"):
        crop(tmp_path, "dataset_name=cityscapes")
    open_dataset(config(tmp_path, dataset_name="cityscapes"), "train")
    assert "have JPEG quality 95, subsampling 4:4:4" in caplog.text


def test_manifest__source_parameters_and_count(tmp_path):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes", "jpeg_quality=90")
    manifest = json.loads((tmp_path / FIVE / "manifest.json").read_text())
    assert manifest["source"] == {"dataset_name": "cityscapes", "dir_dataset_name": None}
    assert manifest["parameters"] == {
        "crop_type": "five", "crop_ratio": 0.5, "jpeg_quality": 90, "jpeg_subsampling": "4:2:0", "seed": None,
    }  # fmt: skip
    assert {split: (entry["crops"], entry["complete"]) for split, entry in manifest["splits"].items()} == {
        "train": (20, True),
        "val": (20, True),
    }


def test_rerun__keeps_complete_crops_and_rewrites_the_rest(tmp_path, capsys):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes")
    folder = tmp_path / FIVE
    expected = files_in(folder)
    torn, empty, garbage, resized, missing = (
        folder / name
        for name in ("img/train/3.jpg", "img/train/4.jpg", "label/train/7.png", "img/val/9.jpg", "label/val/0.png")
    )
    torn.write_bytes(torn.read_bytes()[:-400])
    empty.write_bytes(b"")
    garbage.write_bytes(b"no picture")
    save(resized, picture(0, (31, 24)))
    missing.unlink()
    (folder / "img/train/.12-abcdefgh.jpg").write_bytes(b"left by a killed run")
    (folder / ".manifest-abcdefgh.json").write_text("{")
    kept = folder / "img/train/0.jpg"
    os.utime(kept, (1, 1))
    capsys.readouterr()
    crop(tmp_path, "dataset_name=cityscapes")
    assert files_in(folder) == expected
    assert kept.stat().st_mtime == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{folder} train: 20 crops, 3 written",
        f"{folder} val: 20 crops, 2 written",
    ]


@pytest.mark.parametrize("argument", ["jpeg_quality=80", "splits=[train]"])
def test_rerun__refuses_to_mix_other_crops(tmp_path, argument):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes")
    expected = files_in(tmp_path / FIVE)
    if argument.startswith("splits"):  # the dataset has changed since
        save(tmp_path / "cityscapes/leftImg8bit/train/aachen/aachen_000009_000019_leftImg8bit.png", picture(9))
        save(tmp_path / "cityscapes/gtFine/train/aachen/aachen_000009_000019_gtFine_labelIds.png", picture(9)[:, :, 0])
    with pytest.raises(DataError, match=r"manifest\.json: these crops were made with .* instead of"):
        crop(tmp_path, "dataset_name=cityscapes", argument)
    assert files_in(tmp_path / FIVE) == expected


def test_broken_image__is_named_and_other_crops_are_kept(tmp_path):
    write_cityscapes(tmp_path)
    path = tmp_path / "cityscapes/leftImg8bit/train/bochum/bochum_000001_000019_leftImg8bit.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(DataError, match=str(path)):
        crop(tmp_path, "dataset_name=cityscapes", "num_processes=2")
    assert len(list((tmp_path / FIVE / "img/train").glob("[0-9]*.jpg"))) == 15
    path.write_bytes(whole)
    crop(tmp_path, "dataset_name=cityscapes")
    assert len(open_dataset(config(tmp_path, dataset_name="cityscapes"), "train")) == 20


def test_training_split__crops_and_validation_whole_images(tmp_path):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes")
    cfg = config(tmp_path, dataset_name="cityscapes")
    whole = open_whole_dataset(cfg, "train")
    train, val = open_dataset(cfg, "train"), open_dataset(cfg, "val")
    assert (len(train), train.image(0).size) == (20, (30, 24))
    assert (len(val), val.image(0).size) == (4, (60, 48))
    assert train.classes.names == whole.classes.names
    np.testing.assert_array_equal(train.label(5), whole.label(1)[:24, :30])


def test_training__needs_no_whole_images(tmp_path):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes", "splits=train")
    (tmp_path / "cityscapes").rename(tmp_path / "put away")
    assert len(open_dataset(config(tmp_path, dataset_name="cityscapes"), "train")) == 20


def test_unlabelled_directory__no_label_folder(tmp_path):
    write_directory(tmp_path, labels=False)
    crop(tmp_path, "dataset_name=directory", "dir_dataset_name=mine")
    assert not (tmp_path / "cropped/mine_five_crop_0.5/label").exists()
    dataset = open_dataset(config(tmp_path, dataset_name="directory", dir_dataset_name="mine"), "train")
    assert (len(dataset), dataset.has_labels) == (20, False)


@pytest.mark.parametrize(
    "gone",
    ["", "manifest.json img/train/7.jpg", "img/train/7.jpg", "label/train/19.png", "label/train", "never cropped"],
)
def test_incomplete__error_gives_the_command_that_completes_it(tmp_path, gone):
    write_cityscapes(tmp_path)
    folder = tmp_path / FIVE
    keys = {"dataset_name": "cityscapes"}
    if gone != "never cropped":
        crop(tmp_path, *(f"{key}={value}" for key, value in keys.items()))
        for name in gone.split() or [""]:
            (folder / name).rename(tmp_path / f"elsewhere{Path(name).suffix}")
    gone = gone.split()[-1] if gone.split() else ""
    with pytest.raises(DataError) as caught:
        open_dataset(config(tmp_path, **keys), "train")
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder / "img/train") in message or str(folder / gone) in message
    program, *words = message.split("`")[1].removeprefix("python ").split()
    assert program == "crop_datasets.py"
    crop(tmp_path, *words)
    assert len(open_dataset(config(tmp_path, **keys), "train")) == 20


def test_without_labels_and_manifest__files_are_counted(tmp_path):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes")
    for name in ("manifest.json", "label"):
        (tmp_path / FIVE / name).rename(tmp_path / name)
    (tmp_path / FIVE / "img/train/Thumbs.db").write_bytes(b"")
    dataset = open_dataset(config(tmp_path, dataset_name="cityscapes"), "train")
    assert (len(dataset), dataset.has_labels) == (20, False)


def test_label_out_of_range__is_named(tmp_path):
    write_directory(tmp_path)
    keys = {"dataset_name": "directory", "dir_dataset_name": "mine"}
    crop(tmp_path, *(f"{key}={value}" for key, value in keys.items()))
    path = tmp_path / "cropped/mine_five_crop_0.5/label/train/2.png"
    save(path, np.full((24, 30), 4, dtype=np.uint8))
    dataset = open_dataset(config(tmp_path, **keys), "train")
    with pytest.raises(DataError, match=f"{path}: contains 4"):
        dataset.label(2)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("crop_type=six", "unknown value of crop_type 'six'"),
        ("crop_ratio=0", "crop_ratio: 0.0 must be larger"),
        ("crop_ratio=0.01", "crop_ratio: 0.01 leaves no pixels of a 60×48 image"),
        ("splits=[tran]", "did you mean 'train'"),
        ("jpeg_quality=101", "jpeg_quality: 101 is too large"),
        ("dataset_name=[cityscape]", "did you mean 'cityscapes'"),
    ],
)
def test_wrong_value__is_named(tmp_path, argument, message):
    write_cityscapes(tmp_path)
    with pytest.raises(ConfigError, match=message):
        crop(tmp_path, "dataset_name=cityscapes", argument)


def test_killed_at_random__resumed_equals_uninterrupted(tmp_path):
    n_images = 60
    for data_dir in (tmp_path / "once", tmp_path / "cut"):
        for index in range(n_images):
            save(data_dir / f"mine/imgs/train/{index:03d}.jpg", picture(index % 7, (480, 360)))
            save(data_dir / f"mine/labels/train/{index:03d}.png", picture(index, (480, 360))[:, :, 0] // 128)
        (data_dir / "mine/classes.txt").write_text("dark\nbright\n")
    keys = {"dataset_name": "directory", "dir_dataset_name": "mine"}
    words = [*(f"{key}={value}" for key, value in keys.items()), "crop_type=random", "splits=train"]
    crop(tmp_path / "once", *words)
    folder = tmp_path / "cut/cropped/mine_random_crop_0.5"
    arguments = [sys.executable, "crop_datasets.py", *words, f"pytorch_data_dir={tmp_path / 'cut'}", "num_processes=2"]
    rng = random.Random()
    caught_in_the_middle = 0
    for _ in range(3):
        before = len(list(folder.glob("*/*/[0-9]*")))
        target = before + rng.randint(1, 10 * n_images // 5)
        process = subprocess.Popen(arguments, cwd=SOURCES, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.glob("*/*/[0-9]*"))) < target:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        caught_in_the_middle += process.wait() == -signal.SIGKILL
        time.sleep(0.3)  # the workers notice
        after = len(list(folder.glob("*/*/[0-9]*")))
        if after < 10 * n_images:
            with pytest.raises(DataError, match="the crops are incomplete; run `python crop_datasets"):
                open_dataset(config(tmp_path / "cut", **{**keys, "crop_type": "random"}), "train")
    assert caught_in_the_middle >= 1
    subprocess.run(arguments, cwd=SOURCES, check=True, capture_output=True)
    assert files_in(folder) == files_in(tmp_path / "once/cropped/mine_random_crop_0.5")
    assert len(open_dataset(config(tmp_path / "cut", **{**keys, "crop_type": "random"}), "train")) == 5 * n_images


def test_killed__no_worker_is_left(tmp_path):
    import psutil

    for index in range(40):
        save(tmp_path / f"mine/imgs/train/{index}.jpg", picture(index, (1200, 900)))
    (tmp_path / "mine/classes.txt").write_text("a\n")
    words = ["dataset_name=directory", "dir_dataset_name=mine", "splits=train", f"pytorch_data_dir={tmp_path}"]
    process = psutil.Popen(
        [sys.executable, "crop_datasets.py", *words, "num_processes=2"],
        cwd=SOURCES,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(tmp_path.glob("cropped/*/img/train/[0-9]*")):
        time.sleep(0.01)
    workers = process.children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def test_start__looks_at_no_crop_by_itself(tmp_path, monkeypatch):
    """Half a million crops start in seconds: folders are listed once, without a Path or a stat per file."""
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes")
    counted = {"made": 0}
    joined = type(tmp_path).__truediv__

    def counting(path, name):
        counted["made"] += 1
        return joined(path, name)

    monkeypatch.setattr(type(tmp_path), "__truediv__", counting)
    dataset = open_dataset(config(tmp_path, dataset_name="cityscapes"), "train")
    assert len(dataset) == 20
    assert counted["made"] < len(dataset)
