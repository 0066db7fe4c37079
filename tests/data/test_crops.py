"""crop_datasets.py, called in this process, and training on its crops."""

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from eagle.commands import provisions as command
from eagle.config.application import parse_command_line
from eagle.config.schema import DatasetConfig
from eagle.config.validation import validated
from eagle.data.datasets.catalog import open_dataset, open_whole_dataset
from eagle.data.datasets.cropped import crop_boxes
from eagle.errors import ConfigError, DataError
from miniatures import WRITERS, picture, save, write_cityscapes, write_directory

SOURCES = Path(__file__).resolve().parents[2] / "src_EAGLE"
FIVE = "cropped/cityscapes_five_crop_0.5"


def crop(data_dir, *arguments):
    words = [f"pytorch_data_dir={data_dir}", "num_processes=1", *arguments]
    command.crop_datasets(parse_command_line(command.CropConfig, words))


def config(data_dir, **keys):
    return validated(DatasetConfig, {"pytorch_data_dir": str(data_dir), "crop_type": "five", **keys})


def files_in(folder):
    """Digests of the crops; the record holds times."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def as_jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("content", ['{"n_images": 4', "[]", '{"n_images": 4}'])
def test_five__damaged_record_is_named(tmp_path, content):
    WRITERS["cityscapes"](tmp_path)
    record = tmp_path / FIVE / "train.json"
    record.parent.mkdir(parents=True)
    record.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.json: not a record of crops; move .* away and crop again"):
        open_dataset(config(tmp_path, dataset_name="cityscapes"), "train")


@pytest.mark.parametrize("name", ["cocostuff27", "potsdam", "directory"])
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


def test_other_parameters__are_refused(tmp_path):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes", "jpeg_quality=95")
    image = open_whole_dataset(config(tmp_path, dataset_name="cityscapes"), "train").image(0)
    expected = as_jpeg(image.crop((0, 0, 30, 24)), quality=95)
    assert (tmp_path / FIVE / "img/train/0.jpg").read_bytes() == expected
    with pytest.raises(DataError, match="jpeg_quality 95 instead of 75"):
        crop(tmp_path, "dataset_name=cityscapes")


def test_rerun__crops_an_edited_label_again(tmp_path, capsys):
    """Of the same size in pixels, and with an old time as from an archive."""
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes")
    (path,) = (tmp_path / "cityscapes/gtFine/train").rglob("bochum_000000*labelIds.png")
    save(path, np.asarray(Image.open(path))[::-1, ::-1])
    os.utime(path, (1, 1))
    capsys.readouterr()
    crop(tmp_path, "dataset_name=cityscapes")
    assert capsys.readouterr().out.startswith(f"{tmp_path / FIVE} train: 20 crops, 5 written\n")
    cfg = config(tmp_path, dataset_name="cityscapes")
    whole, crops = open_whole_dataset(cfg, "train"), open_dataset(cfg, "train")
    index = next(index for index in range(4) if path == whole.label_path(index))
    np.testing.assert_array_equal(crops.label(5 * index), whole.label(index)[:24, :30])


def test_rerun__crops_only_what_is_missing(tmp_path, capsys):
    write_cityscapes(tmp_path)
    crop(tmp_path, "dataset_name=cityscapes")
    folder = tmp_path / FIVE
    expected = files_in(folder)
    for name in ("img/train/3.jpg", "img/train/4.jpg", "label/train/7.png"):
        (folder / name).unlink()
    (folder / "img/train/.eagle-unfinished-abcdefgh.jpg").write_bytes(b"left by a killed run")
    (folder / ".eagle-unfinished-abcdefgh.json").write_text("{")
    os.utime(folder / "img/train/10.jpg", (1, 1))
    capsys.readouterr()
    crop(tmp_path, "dataset_name=cityscapes")
    assert files_in(folder) == expected
    assert (folder / "img/train/10.jpg").stat().st_mtime == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{folder} train: 20 crops, 10 written",
        f"{folder} val: 20 crops, 0 written",
    ]


def test_rerun__after_images_were_added_is_refused(tmp_path):
    """The numbers of the crops would be those of other images."""
    write_directory(tmp_path)
    words = ["dataset_name=directory", "dir_dataset_name=mine", "splits=train"]
    crop(tmp_path, *words)
    for kind, suffix in (("imgs", "jpg"), ("labels", "png")):
        folder = tmp_path / "mine" / kind / "train"
        shutil.copy(folder / f"0.{suffix}", folder / f"00.{suffix}")
    with pytest.raises(DataError, match=r"mine_five_crop_0\.5: these crops were made with n_images 4 instead of 5"):
        crop(tmp_path, *words)


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


@pytest.mark.parametrize("gone", ["label/train/19.png", "label/train", "never cropped"])
def test_incomplete__error_gives_the_command_that_completes_it(tmp_path, gone):
    write_cityscapes(tmp_path)
    folder = tmp_path / FIVE
    keys = {"dataset_name": "cityscapes"}
    if gone != "never cropped":
        crop(tmp_path, *(f"{key}={value}" for key, value in keys.items()))
        (folder / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        open_dataset(config(tmp_path, **keys), "train")
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder / "img/train") in message or str(folder / gone) in message
    program, *words = message.split("`")[1].removeprefix("python ").split()
    assert program == "crop_datasets.py"
    crop(tmp_path, *words)
    assert len(open_dataset(config(tmp_path, **keys), "train")) == 20


@pytest.mark.slow
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
        after = len(list(folder.glob("*/*/[0-9]*")))
        if after < 10 * n_images:
            with pytest.raises(DataError, match=r"are missing\); run `python crop_datasets"):
                open_dataset(config(tmp_path / "cut", **{**keys, "crop_type": "random"}), "train")
    assert caught_in_the_middle >= 1
    subprocess.run(arguments, cwd=SOURCES, check=True, capture_output=True)
    assert files_in(folder) == files_in(tmp_path / "once/cropped/mine_random_crop_0.5")
    assert len(open_dataset(config(tmp_path / "cut", **{**keys, "crop_type": "random"}), "train")) == 5 * n_images


@pytest.mark.parametrize("size", [(60, 48), (61, 47), (1, 1), (3, 640)])
@pytest.mark.parametrize("ratio", [0.5, 0.29, 1.0])
def test_five_boxes__same_pixels_as_torchvision(size, ratio):
    w, h = int(size[0] * ratio), int(size[1] * ratio)
    if 0 in (h, w):
        with pytest.raises(ConfigError, match="crop_ratio"):
            crop_boxes(*size, ratio)
        return
    image = Image.fromarray(np.arange(size[0] * size[1], dtype=np.int32).reshape(size[::-1]))
    for box, theirs in zip(crop_boxes(*size, ratio), F.five_crop(image, [h, w]), strict=True):
        np.testing.assert_array_equal(np.asarray(image.crop(box)), np.asarray(theirs))


def test_random_boxes__inside_of_one_size_and_everywhere():
    rng = np.random.default_rng(0)
    boxes = [box for _ in range(400) for box in crop_boxes(9, 7, 0.5, rng)]
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(4, 3)}
    assert {box[:2] for box in boxes} == {(x, y) for x in range(6) for y in range(5)}
    assert set(crop_boxes(9, 7, 1.0, rng)) == {(0, 0, 9, 7)}
