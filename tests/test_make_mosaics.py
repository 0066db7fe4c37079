import colorsys
from itertools import product

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter
from scripts.make_mosaics import CLASSES, MANIFEST, MOSAIC_CLASSES, compose_scene, write_mosaics

from eagle.errors import DataError


def contents(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "mosaics"
    write_mosaics(directory, n_train=24, n_val=16, size=64, seed=0)
    return directory


def test_write__directory_dataset_with_every_class_in_both_splits(small_set):
    counts = {"train": 24, "val": 16}
    names = {f"imgs/{split}/{i:05d}.jpg" for split, count in counts.items() for i in range(count)}
    names |= {f"labels/{split}/{i:05d}.png" for split, count in counts.items() for i in range(count)}
    assert contents(small_set).keys() == names | {"classes.txt", MANIFEST}
    assert (small_set / "classes.txt").read_text().splitlines() == list(MOSAIC_CLASSES)
    for split in counts:
        present = set()
        for path in (small_set / "imgs" / split).iterdir():
            image = Image.open(path)
            label = Image.open(small_set / "labels" / split / f"{path.stem}.png")
            assert (image.mode, image.size, label.mode, label.size) == ("RGB", (64, 64), "L", (64, 64))
            present |= set(np.unique(np.asarray(label)))
        assert present == set(range(len(MOSAIC_CLASSES)))


def test_write__scene_depends_on_seed_split_and_index_only(small_set, tmp_path):
    larger = contents(small_set)
    write_mosaics(tmp_path / "fewer", n_train=3, n_val=2, size=64, seed=0)
    fewer = {name: content for name, content in contents(tmp_path / "fewer").items() if name != MANIFEST}
    assert len(fewer) == 11
    assert fewer == {name: larger[name] for name in fewer}
    write_mosaics(tmp_path / "other", n_train=3, n_val=0, size=64, seed=1)
    other = [content for name, content in contents(tmp_path / "other").items() if name.startswith(("imgs", "labels"))]
    assert len({*other, *larger.values()}) == 6 + len(larger)


def test_write__same_set_again_changes_nothing(small_set):
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    write_mosaics(small_set, n_train=24, n_val=16, size=64, seed=0)
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == before


def test_write__refuses_a_folder_made_with_other_values_or_of_other_things(small_set, tmp_path):
    before = contents(small_set)
    with pytest.raises(DataError, match="mosaics of other values") as caught:
        write_mosaics(small_set, n_train=24, n_val=15, size=64, seed=0)
    assert str(small_set) in str(caught.value)
    assert contents(small_set) == before
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(DataError, match="contains other files"):
        write_mosaics(tmp_path, n_train=1, n_val=0, size=32, seed=0)
    assert contents(tmp_path) == {"holiday.jpg": b"precious"}


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


def test_sources__train_and_val_boxes_are_disjoint():
    sources = [source for entry in CLASSES for source in entry.sources]
    for first, second in product(sources, sources):
        if first.file == second.file:
            for train, val in product(first.train, second.val):
                apart = train[2] <= val[0] or val[2] <= train[0] or train[3] <= val[1] or val[3] <= train[1]
                assert apart, (first.file, train, val)
