"""COCO-Stuff, Cityscapes and Potsdam on miniature copies of their folder layouts."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat
from torchvision.datasets import Cityscapes as TorchvisionCityscapes

from eagle.config.schema import DatasetConfig
from eagle.config.validation import validated
from eagle.data.datasets.base import VOID, read_sample
from eagle.data.datasets.catalog import open_dataset
from eagle.errors import DataError
from miniatures import WRITERS, label_map, save, write_cityscapes, write_cocostuff, write_potsdam

COCO_NAMES = [
    "electronic", "appliance", "food-things", "furniture-things", "indoor", "kitchen", "accessory", "animal",
    "outdoor", "person", "sports", "vehicle", "ceiling", "floor", "food-stuff", "furniture-stuff", "raw-material",
    "textile", "wall", "window", "building", "ground", "plant", "sky", "solid", "structural", "water",
]  # fmt: skip
N_CLASSES = {"cocostuff27": 27, "cocostuff15": 15, "cocostuff3": 3, "cityscapes": 27, "potsdam": 3}


def opened(data_dir, name, split="train", **keys):
    values = {"dataset_name": name, "pytorch_data_dir": str(data_dir), **keys}
    return open_dataset(validated(DatasetConfig, values), split)


def coco_reference(golden):
    """The golden 182 → 27 mapping as a table of 256, −1 for void."""
    mapping = json.loads(golden.path("cocostuff_182_to_27.json").read_text())
    table = np.full(256, VOID)
    for fine, coarse in mapping.items():
        table[int(fine)] = coarse
    return table


@pytest.mark.parametrize("name", N_CLASSES)
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_dataset__samples_fit_their_classes(tmp_path, name, split):
    WRITERS[name](tmp_path)
    dataset = opened(tmp_path, name, split)
    classes = dataset.classes
    assert len(classes) == N_CLASSES[name] == len(set(classes.names))
    assert (classes.palette.shape, classes.palette.dtype) == ((len(classes), 3), np.uint8)
    assert dataset.has_labels
    assert len({dataset.name(i) for i in range(len(dataset))}) == len(dataset)
    seen = set()
    for index in range(len(dataset)):
        image, label = read_sample(dataset, index)
        assert (image.mode, label.dtype) == ("RGB", np.int32)
        seen |= set(np.unique(label).tolist())
    assert VOID in seen
    assert len(seen) > 2
    assert seen <= {VOID, *range(len(classes))}


def test_cocostuff27__every_fine_id_maps_as_golden(tmp_path, golden):
    write_cocostuff(tmp_path)
    fine = np.array([*range(182), *[255] * 10], dtype=np.uint8).reshape(12, 16)
    save(tmp_path / "cocostuff/annotations/train2017/000000000100.png", fine)
    dataset = opened(tmp_path, "cocostuff27")
    assert list(dataset.classes.names) == COCO_NAMES
    np.testing.assert_array_equal(dataset.label(0), coco_reference(golden)[fine])


@pytest.mark.parametrize("name", ["cocostuff15", "cocostuff3"])
def test_cocostuff__coarser_variants_follow_from_27(tmp_path, golden, name):
    write_cocostuff(tmp_path)
    dataset = opened(tmp_path, name)
    stored = np.asarray(Image.open(tmp_path / f"cocostuff/annotations/train2017/{dataset.name(0)}.png"))
    coarse = coco_reference(golden)[stored]
    if name == "cocostuff15":
        expected = np.where(coarse >= 12, coarse - 12, VOID)
        assert list(dataset.classes.names) == COCO_NAMES[12:]
    else:
        expected = np.select([coarse == 23, coarse == 22, coarse == 21], [0, 1, 2], VOID)
        assert dataset.classes.names == ("sky", "plant", "ground")
    np.testing.assert_array_equal(dataset.label(0), expected)


@pytest.mark.parametrize(
    ("name", "split", "ids"),
    [
        ("cocostuff27", "train", range(100, 106)),
        ("cocostuff27", "val", range(901, 906)),
        ("cocostuff15", "train", range(101, 106)),
        ("cocostuff3", "train", range(100, 105)),
    ],
)
def test_cocostuff__each_variant_reads_its_list(tmp_path, name, split, ids):
    write_cocostuff(tmp_path)
    dataset = opened(tmp_path, name, split)
    assert [dataset.name(i) for i in range(len(dataset))] == [f"{i:012d}" for i in ids]


def test_cityscapes__same_samples_as_torchvision(tmp_path):
    write_cityscapes(tmp_path)
    dataset = opened(tmp_path, "cityscapes", "val")
    theirs = TorchvisionCityscapes(str(tmp_path / "cityscapes"), "val", "fine", "semantic")
    index_of = {path.rsplit("/", 1)[1].removesuffix("_leftImg8bit.png"): i for i, path in enumerate(theirs.images)}
    assert [dataset.name(i) for i in range(len(dataset))] == sorted(index_of)
    for index in range(len(dataset)):
        image, raw = theirs[index_of[dataset.name(index)]]
        np.testing.assert_array_equal(np.asarray(dataset.image(index)), np.asarray(image))
        raw = np.asarray(raw).astype(int)
        np.testing.assert_array_equal(dataset.label(index), np.where((raw >= 7) & (raw <= 33), raw - 7, VOID))


def test_potsdam__splits_pixels_and_classes(tmp_path):
    write_potsdam(tmp_path)
    train, val = opened(tmp_path, "potsdam", "train"), opened(tmp_path, "potsdam", "val")
    assert [train.name(i) for i in range(len(train))] == ["3", "1", "20"], "labelled_train.txt alone, as released"
    assert [val.name(i) for i in range(len(val))] == ["0", "12", "5"]
    np.testing.assert_array_equal(np.asarray(train.image(0)), loadmat(tmp_path / "potsdam/imgs/3.mat")["img"][:, :, :3])
    fine = loadmat(tmp_path / "potsdam/gt/3.mat")["gt"]
    expected = np.select([np.isin(fine, pair) for pair in ((0, 4), (1, 5), (2, 3))], [0, 1, 2], VOID)
    np.testing.assert_array_equal(train.label(0), expected)


def test_potsdam__unlabelled_tiles_are_void_even_if_a_label_file_exists(tmp_path):
    write_potsdam(tmp_path)
    savemat(tmp_path / "potsdam/gt/7.mat", {"gt": label_map(0, (0, 1))})
    train = opened(tmp_path, "potsdam", potsdam_unlabelled=True)
    assert [train.name(i) for i in range(len(train))] == ["3", "1", "20", "7"]
    assert train.label(3).shape == (48, 60)
    assert (train.label(3) == VOID).all()
    val = opened(tmp_path, "potsdam", "val", potsdam_unlabelled=True)
    assert [val.name(i) for i in range(len(val))] == ["0", "12", "5"]


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("cocostuff27", "cocostuff/curated/train2017/Coco164kFull_Stuff_Coarse.txt"),
        ("cocostuff3", "cocostuff/annotations/train2017/000000000102.png"),
        ("cityscapes", "cityscapes"),
        ("cityscapes", "cityscapes/gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png"),
        ("potsdam", "potsdam/imgs/7.mat"),
    ],
)
def test_missing__path_and_command_in_one_line(tmp_path, name, gone):
    WRITERS[name](tmp_path)
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        opened(tmp_path, name, potsdam_unlabelled=True)
    message, archive = str(caught.value), gone.split("/")[0]
    assert message.startswith(str(tmp_path / gone))
    assert f"python download_datasets.py datasets=[{archive}] unzip=true pytorch_data_dir={tmp_path}`" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a MATLAB file"),
        ({"other": np.zeros((4, 4, 4), np.uint8)}, "has no variable 'img'"),
        ({"img": np.zeros((4, 4, 4))}, "not RGB in uint8"),
    ],
)
def test_potsdam__damaged_tile_is_named(tmp_path, content, message):
    write_potsdam(tmp_path)
    path = tmp_path / "potsdam/imgs/3.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        savemat(path, content)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path, "potsdam").image(0)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
