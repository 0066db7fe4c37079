import unicodedata

import numpy as np
import pytest
from PIL import Image

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.check import inspect_dataset
from eagle.data.datasets.base import read_sample
from eagle.data.datasets.catalog import open_dataset
from eagle.data.datasets.directory import DirectoryDataset
from eagle.errors import ConfigError, DataError, EagleError
from miniatures import write_directory


@pytest.fixture
def root(tmp_path):
    """Four 60×48 training images with labels 0, 1, 2 and void."""
    write_directory(tmp_path)
    return tmp_path / "mine"


def test_directory__images_labels_and_names(root):
    dataset = DirectoryDataset(root, "train")
    assert len(dataset) == 4
    assert dataset.name(1) == "1"
    assert dataset.classes.names == ("red", "green", "blue")
    assert dataset.image(0).size == (60, 48)
    assert set(np.unique(dataset.label(0))) == {-1, 0, 1, 2}, "255 is void"


def test_directory__without_labels(root):
    for path in (root / "labels/train").iterdir():
        path.unlink()
    (root / "labels/train").rmdir()
    dataset = DirectoryDataset(root, "train")
    assert not dataset.has_labels
    _, label = read_sample(dataset, 0)
    assert (label == -1).all()


def test_directory__number_of_classes_without_names(root):
    (root / "classes.txt").unlink()
    with pytest.raises(ConfigError, match="dir_dataset_n_classes"):
        DirectoryDataset(root, "train")
    assert DirectoryDataset(root, "train", 3).classes.names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "labels/train/2.png").unlink(), r"2\.jpg: no label .*1 of 4"),
        (lambda root: Image.new("RGB", (4, 4)).save(root / "imgs/train/1.png"), r"same name as"),
        (lambda root: (root / "classes.txt").write_text("sky\nsky\n"), r"classes\.txt: names 'sky' more than once"),
        (lambda root: (root / "classes.txt").write_text("sky\n\nroad\n\n"), r"classes\.txt: line 2 is empty"),
    ],
)
def test_directory__what_is_inconsistent_is_named(root, break_it, message):
    break_it(root)
    with pytest.raises(EagleError, match=message):
        DirectoryDataset(root, "train")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.full((48, 60), 7), r"3\.png: label id 7 is out of range: the ids here are 0 to 2 and 255"),
        (np.zeros((8, 8)), r"3\.jpg: the label map is 8×8 pixels, its image 60×48"),
        (np.zeros((60, 48)), r"3\.jpg: .* apply the EXIF rotation"),
        (np.zeros((48, 60, 3)), "one channel"),
    ],
)
def test_check__label_that_does_not_fit_is_named(root, label, message):
    Image.fromarray(label.astype(np.uint8)).save(root / "labels/train/3.png")
    with pytest.raises(DataError, match=message):
        inspect_dataset(DirectoryDataset(root, "train"), "training images").accepted("error")


@pytest.mark.parametrize("stem", ["größe 7 日本", "dots.in.it", "new\nline", "[x] 100%"])
def test_directory__any_name(root, stem):
    (root / "imgs/train/0.jpg").rename(root / f"imgs/train/{stem}.jpg")
    (root / "labels/train/0.png").rename(root / f"labels/train/{stem}.png")
    dataset = DirectoryDataset(root, "train")
    index = [dataset.name(i) for i in range(4)].index(stem)
    assert read_sample(dataset, index)[1].shape == (48, 60)


def test_directory__unicode_normal_forms_match(root):
    """macOS stores decomposed names (NFD), other systems composed ones (NFC)."""
    (root / "imgs/train/0.jpg").rename(root / f"imgs/train/{unicodedata.normalize('NFD', 'größe')}.jpg")
    (root / "labels/train/0.png").rename(root / f"labels/train/{unicodedata.normalize('NFC', 'größe')}.png")
    assert len(DirectoryDataset(root, "train")) == 4


def test_open_dataset__errors_name_the_key(tmp_path):
    def config(**values):
        return validated(TrainConfig, values)

    with pytest.raises(ConfigError, match="did you mean 'directory'"):
        open_dataset(config(dataset_name="directori"), "train")
    with pytest.raises(DataError, match="pytorch_data_dir"):
        open_dataset(config(dataset_name="directory", pytorch_data_dir=str(tmp_path / "none")), "train")
    with pytest.raises(ConfigError, match="dir_dataset_name"):
        open_dataset(config(dataset_name="directory", pytorch_data_dir=str(tmp_path)), "train")
