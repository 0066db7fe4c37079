import colorsys
import hashlib
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from eagle.data.mosaics import writing
from eagle.data.mosaics.scenes import MIN_SHARE, compose_scene, draw_layout
from eagle.data.mosaics.sources import CLASSES, load_textures
from eagle.data.mosaics.writing import MOSAIC_CLASSES, write_mosaics
from eagle.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[3]


def read_all(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "mosaics"
    write_mosaics(directory, n_train=24, n_val=16, size=64, seed=0)
    return directory


def test_write__directory_dataset_layout(small_set):
    for split, count in (("train", 24), ("val", 16)):
        stems = [f"{index:05d}" for index in range(count)]
        assert sorted(path.name for path in (small_set / "imgs" / split).iterdir()) == [f"{s}.jpg" for s in stems]
        assert sorted(path.name for path in (small_set / "labels" / split).iterdir()) == [f"{s}.png" for s in stems]
    assert (small_set / "classes.txt").read_text().splitlines() == list(MOSAIC_CLASSES)
    assert sorted(path.name for path in small_set.iterdir()) == ["classes.txt", "imgs", "labels", "mosaics.json"]


def test_write__images_are_rgb_and_labels_uint8_ids_of_the_same_size(small_set):
    for path in small_set.glob("imgs/*/*.jpg"):
        image = Image.open(path)
        label = Image.open(small_set / "labels" / path.parent.name / f"{path.stem}.png")
        assert (image.mode, image.size, label.mode, label.size) == ("RGB", (64, 64), "L", (64, 64))
        assert np.asarray(label).max() < len(MOSAIC_CLASSES)


@pytest.mark.parametrize("split", ["train", "val"])
def test_write__every_class_occurs_in_both_splits(small_set, split):
    present = [np.unique(np.asarray(Image.open(path))) for path in (small_set / "labels" / split).iterdir()]
    assert set(np.concatenate(present)) == set(range(len(MOSAIC_CLASSES)))


def test_write__scene_depends_on_seed_split_and_index_only(small_set, tmp_path):
    write_mosaics(tmp_path / "fewer", n_train=3, n_val=2, size=64, seed=0)
    larger = read_all(small_set)
    scenes = {name: digest for name, digest in read_all(tmp_path / "fewer").items() if name != writing.MANIFEST}
    assert len(scenes) == 11
    assert scenes == {name: larger[name] for name in scenes}


def test_write__other_seed_gives_other_scenes_and_none_repeat(small_set, tmp_path):
    write_mosaics(tmp_path / "other", n_train=4, n_val=4, size=64, seed=1)
    first = {digest for name, digest in read_all(small_set).items() if name.startswith(("imgs", "labels"))}
    other = {digest for name, digest in read_all(tmp_path / "other").items() if name.startswith(("imgs", "labels"))}
    assert len(first) == 80
    assert len(other) == 16
    assert not first & other


def test_write__each_split_shows_its_own_crops_only(tmp_path, monkeypatch):
    colours = {"train": (0.7, 0.0, 0.0), "val": (0.0, 0.0, 0.7)}

    def flat_textures(split):
        return [[np.full((8, 8, 3), colours[split], np.float32)] for _ in CLASSES]

    monkeypatch.setattr(writing, "load_textures", flat_textures)
    write_mosaics(tmp_path / "set", n_train=2, n_val=2, size=32, seed=0)
    for split, strong, absent in (("train", 0, 2), ("val", 2, 0)):
        for path in (tmp_path / "set/imgs" / split).iterdir():
            image = np.asarray(Image.open(path))
            assert image[..., strong].min() > 80
            assert image[..., absent].max() < 60


@pytest.mark.parametrize("size", [32, 97])
def test_write__any_size_and_no_validation(tmp_path, size):
    write_mosaics(tmp_path / "set", n_train=2, n_val=0, size=size, seed=3)
    assert Image.open(tmp_path / "set/imgs/train/00001.jpg").size == (size, size)
    assert Image.open(tmp_path / "set/labels/train/00001.png").size == (size, size)
    assert list((tmp_path / "set/imgs/val").iterdir()) == []


def test_write__same_set_again_changes_nothing(small_set):
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    write_mosaics(small_set, n_train=24, n_val=16, size=64, seed=0)
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == before


@pytest.mark.parametrize("changed", [{"seed": 1}, {"size": 96}, {"n_train": 25}, {"n_val": 15}])
def test_write__refuses_a_folder_made_with_other_values(small_set, changed):
    before = read_all(small_set)
    wanted = {"n_train": 24, "n_val": 16, "size": 64, "seed": 0} | changed
    with pytest.raises(DataError) as caught:
        write_mosaics(small_set, **wanted)
    (name,) = changed
    assert str(small_set) in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_all(small_set) == before


def test_write__refuses_a_set_of_another_generator(tmp_path):
    write_mosaics(tmp_path / "set", n_train=1, n_val=0, size=32, seed=0)
    manifest = json.loads((tmp_path / "set" / writing.MANIFEST).read_text())
    (tmp_path / "set" / writing.MANIFEST).write_text(json.dumps(manifest | {"generator": 0}))
    with pytest.raises(DataError, match="generator"):
        write_mosaics(tmp_path / "set", n_train=1, n_val=0, size=32, seed=0)


def test_write__refuses_a_folder_of_other_things(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(DataError, match="photos"):
        write_mosaics(tmp_path / "photos", n_train=1, n_val=0, size=32, seed=0)
    assert read_all(tmp_path / "photos").keys() == {"holiday.jpg"}


def test_write__refuses_a_set_with_missing_files(tmp_path):
    write_mosaics(tmp_path / "set", n_train=2, n_val=0, size=32, seed=0)
    (tmp_path / "set/labels/train/00001.png").unlink()
    with pytest.raises(DataError, match="1 of 2"):
        write_mosaics(tmp_path / "set", n_train=2, n_val=0, size=32, seed=0)


def test_write__fills_an_empty_folder(tmp_path):
    write_mosaics(tmp_path, n_train=1, n_val=0, size=32, seed=0)
    assert (tmp_path / "imgs/train/00000.jpg").is_file()


def test_write__interrupted_leaves_nothing(tmp_path, monkeypatch):
    calls = iter([compose_scene] * 3)

    def interrupted(*arguments):
        scene = next(calls, None)
        if scene is None:
            raise KeyboardInterrupt
        return scene(*arguments)

    monkeypatch.setattr(writing, "compose_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_mosaics(tmp_path / "set", n_train=2, n_val=2, size=32, seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"n_train": -1}, {"n_val": -1}, {"size": 31}, {"seed": -1}])
def test_write__refuses_numbers_out_of_range(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        write_mosaics(tmp_path / "set", **({"n_train": 1, "n_val": 1, "size": 32, "seed": 0} | wrong))
    assert list(tmp_path.iterdir()) == []


def test_compose_scene__labels_agree_with_the_pixels():
    """Each class has one flat hue, so a pixel's hue gives its class independently of the generator."""
    hues = [colorsys.hsv_to_rgb(index / len(CLASSES), 1.0, 0.7) for index in range(len(CLASSES))]
    flat = [[np.full((20, 30, 3), hue, np.float32)] for hue in hues]
    directions = np.array(hues) / np.linalg.norm(hues, axis=1, keepdims=True)
    for index in range(8):
        image, labels = compose_scene(flat, 128, np.random.default_rng(index))
        seen = np.argmax(image.astype(float) @ directions.T, axis=-1)
        inside = minimum_filter(labels, 5) == maximum_filter(labels, 5)
        assert inside.mean() > 0.7
        assert (seen == labels)[inside].all()
        assert (seen == labels).mean() > 0.99


def test_draw_layout__three_to_six_classes_each_visible():
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(60):
        labels = draw_layout(48, rng)
        shares = np.bincount(labels.ravel()) / labels.size
        assert shares[shares > 0].min() >= MIN_SHARE
        counts.add(int((shares > 0).sum()))
    assert counts == {3, 4, 5, 6}


def test_sources__train_and_val_boxes_are_disjoint():
    sources = [source for entry in CLASSES for source in entry.sources]
    for first, second in product(sources, sources):
        if first.file == second.file:
            for train, val in product(first.train, second.val):
                apart = train[2] <= val[0] or val[2] <= train[0] or train[3] <= val[1] or val[3] <= train[1]
                assert apart, (first.file, train, val)


@pytest.mark.parametrize("split", ["train", "val"])
def test_load_textures__crops_lie_inside_their_photographs(split):
    """Pillow pads boxes that exceed the photograph with black; no correct crop has a black border."""
    for entry, crops in zip(CLASSES, load_textures(split), strict=True):
        boxes = [box for source in entry.sources for box in source.boxes(split)]
        assert [crop.shape for crop in crops] == [(b - t, r - le, 3) for le, t, r, b in boxes]
        for crop in crops:
            assert crop.dtype == np.float32
            assert crop.min() >= 0
            assert crop.max() <= 1
            for edge in (crop[0], crop[-1], crop[:, 0], crop[:, -1]):
                assert edge.max() > 0


def test_script__writes_a_set_and_refuses_in_one_line(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, ROOT / "scripts/make_mosaics.py", f"output_dir={tmp_path / 'mosaics'}", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src_EAGLE")},
            capture_output=True,
            text=True,
        )

    made = run("n_train=2", "n_val=1", "size=32")
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "mosaics/imgs/train").glob("*.jpg"))) == 2
    refused = run("n_train=3", "n_val=1", "size=32")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr
