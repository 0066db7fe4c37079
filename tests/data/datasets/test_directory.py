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
from eagle.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    """Four 40×30 images with labels 0, 1, 2 and void."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("imgs", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"imgs/{split}/a{i}.jpg")
            label = rng.integers(0, 3, (30, 40), dtype=np.uint8)
            label[0] = 255
            Image.fromarray(label).save(tmp_path / f"labels/{split}/a{i}.png")
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    return tmp_path


def test_directory__images_labels_and_names(root):
    dataset = DirectoryDataset(root, "train")
    assert len(dataset) == 4
    assert dataset.name(1) == "a1"
    assert dataset.classes.names == ("sky", "road", "car")
    assert dataset.image(0).size == (40, 30)
    label = dataset.label(0)
    assert (label[0] == -1).all(), "255 is void"
    assert set(np.unique(label[1:])) == {0, 1, 2}


def test_directory__without_labels(root):
    for path in (root / "labels/train").iterdir():
        path.unlink()
    (root / "labels/train").rmdir()
    dataset = DirectoryDataset(root, "train")
    assert not dataset.has_labels
    _, label = read_sample(dataset, 0)
    assert (label == -1).all()


def test_directory__repeated_class_name_is_refused(root):
    (root / "classes.txt").write_text("sky\nroad\nsky\n")
    with pytest.raises(ConfigError, match=r"classes\.txt: names 'sky' more than once"):
        DirectoryDataset(root, "val")


def test_directory__number_of_classes_without_names(root):
    (root / "classes.txt").unlink()
    with pytest.raises(ConfigError, match="dir_dataset_n_classes"):
        DirectoryDataset(root, "train")
    assert DirectoryDataset(root, "train", 3).classes.names == ("class 0", "class 1", "class 2")


def test_directory__number_of_classes_that_contradicts_the_names(root):
    with pytest.raises(ConfigError, match=r"5, but .*classes\.txt names 3"):
        DirectoryDataset(root, "train", 5)


def test_directory__image_without_label_is_named(root):
    (root / "labels/train/a2.png").unlink()
    with pytest.raises(DataError, match=r"a2\.jpg: no label .*1 of 4"):
        DirectoryDataset(root, "train")


def test_directory__two_images_with_the_same_name(root):
    Image.new("RGB", (4, 4)).save(root / "imgs/train/a1.png")
    with pytest.raises(DataError, match="same name as"):
        DirectoryDataset(root, "train")


def test_directory__missing_folder_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match="imgs/train and imgs/val"):
        DirectoryDataset(tmp_path, "train", 3)


def test_directory__empty_folder(tmp_path):
    (tmp_path / "imgs/train").mkdir(parents=True)
    with pytest.raises(DataError, match="contains no images"):
        DirectoryDataset(tmp_path, "train", 3)


def test_check__label_id_out_of_range_is_named(root):
    Image.fromarray(np.full((30, 40), 7, dtype=np.uint8)).save(root / "labels/train/a3.png")
    with pytest.raises(DataError, match=r"a3\.png: label id 7 is out of range: 3 classes"):
        inspect_dataset(DirectoryDataset(root, "train"), "training images").raise_if_bad()


@pytest.mark.parametrize("content", [b"", b"<html>no image</html>", None])
def test_check__corrupt_image_is_named(root, content):
    path = root / "imgs/train/a1.jpg"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(DataError, match=r"a1\.jpg: cannot be read as an image"):
        inspect_dataset(DirectoryDataset(root, "train"), "training images").raise_if_bad()


def test_check__label_of_another_size_is_named(root):
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(root / "labels/train/a0.png")
    with pytest.raises(DataError, match=r"a0.jpg: the label map is 8×8 pixels, its image 40×30"):
        inspect_dataset(DirectoryDataset(root, "train"), "training images").raise_if_bad()


def test_check__coloured_label_is_refused(root):
    Image.new("RGB", (40, 30)).save(root / "labels/train/a0.png")
    with pytest.raises(DataError, match="one channel"):
        inspect_dataset(DirectoryDataset(root, "train"), "training images").raise_if_bad()


def test_check__transposed_label_hints_at_exif_rotation(root):
    Image.fromarray(np.zeros((40, 30), dtype=np.uint8)).save(root / "labels/train/a0.png")
    with pytest.raises(
        DataError, match=r"a0\.jpg: the label map is 30×40 pixels, its image 40×30; apply the EXIF rotation"
    ):
        inspect_dataset(DirectoryDataset(root, "train"), "training images").raise_if_bad()


@pytest.mark.parametrize("stem", ["two words", "größe 7 日本", "A0", "dots.in.it", "new\nline", "[x] 100%"])
def test_directory__any_name(root, stem):
    (root / "imgs/train/a0.jpg").rename(root / f"imgs/train/{stem}.jpg")
    (root / "labels/train/a0.png").rename(root / f"labels/train/{stem}.png")
    dataset = DirectoryDataset(root, "train")
    index = [dataset.name(i) for i in range(4)].index(stem)
    assert read_sample(dataset, index)[1].shape == (30, 40)


def test_directory__names_are_case_sensitive(root):
    for kind, suffix in (("imgs", "jpg"), ("labels", "png")):
        (root / f"{kind}/train/a1.{suffix}").rename(root / f"{kind}/train/A0.{suffix}")
    assert [DirectoryDataset(root, "train").name(i) for i in range(4)] == ["A0", "a0", "a2", "a3"]


def test_directory__unicode_normal_forms_match(root):
    """macOS stores decomposed names (NFD), other systems composed ones (NFC)."""
    (root / "imgs/train/a0.jpg").rename(root / f"imgs/train/{unicodedata.normalize('NFD', 'größe')}.jpg")
    (root / "labels/train/a0.png").rename(root / f"labels/train/{unicodedata.normalize('NFC', 'größe')}.png")
    assert len(DirectoryDataset(root, "train")) == 4


def test_directory__two_labels_with_the_same_name(root):
    Image.new("L", (40, 30)).save(root / "labels/train/a1.tif")
    with pytest.raises(DataError, match=r"a1\.tif: same name as a1\.png"):
        DirectoryDataset(root, "train")


def test_directory__more_classes_than_ids(root):
    (root / "classes.txt").unlink()
    with pytest.raises(ConfigError, match="256 classes; at most 255 are possible"):
        DirectoryDataset(root, "train", 256)


def test_directory__class_names_in_another_encoding(root):
    (root / "classes.txt").write_bytes("Straße".encode("latin-1"))
    with pytest.raises(DataError, match=r"classes\.txt: not UTF-8 text"):
        DirectoryDataset(root, "train")


def test_open_dataset__errors_name_the_key(tmp_path):
    def config(**values):
        return validated(TrainConfig, values)

    with pytest.raises(ConfigError, match="did you mean 'directory'"):
        open_dataset(config(dataset_name="directori"), "train")
    with pytest.raises(DataError, match="pytorch_data_dir"):
        open_dataset(config(dataset_name="directory", pytorch_data_dir=str(tmp_path / "none")), "train")
    with pytest.raises(ConfigError, match="dir_dataset_name"):
        open_dataset(config(dataset_name="directory", pytorch_data_dir=str(tmp_path)), "train")
