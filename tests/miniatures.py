"""Miniature trees of every dataset in the exact layout of the real ones, made of generated pictures."""

from itertools import product

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (60, 48)  # width and height; different, so that a swap shows
COCO_FINE_IDS = (0, 2, 23, 71, 105, 123, 148, 154, 168, 181, 255)
CITYSCAPES_RAW_IDS = (0, 3, 7, 8, 11, 21, 23, 24, 26, 33)
POTSDAM_FINE_IDS = (0, 1, 2, 3, 4, 5, 255)


def picture(seed, size=SIZE, channels=3):
    """A smooth random picture, H×W×channels uint8."""
    rng = np.random.default_rng(seed)
    planes = [
        Image.fromarray(rng.integers(0, 256, (6, 8), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for _ in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def label_map(seed, ids, size=SIZE):
    """Blocks of the ids, each of which occurs where there are blocks enough; H×W uint8."""
    rng = np.random.default_rng(seed)
    blocks = rng.permutation(np.resize(np.array(ids, dtype=np.uint8), 6 * 4)).reshape(4, 6)
    return np.asarray(Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST))


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def write_halves(root, labels=True, n=4, size=40):
    """A directory dataset of images whose left and right halves differ in colour and class."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / "imgs" / split).mkdir(parents=True)
        if labels:
            (root / "labels" / split).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 80, (size, size + 8, 3), dtype=np.uint8)
            pixels[:, size // 2 :] += 120
            Image.fromarray(pixels).save(root / "imgs" / split / f"{i}.png")
            if labels:
                ids = np.zeros((size, size + 8), dtype=np.uint8)
                ids[:, size // 2 :] = 1
                ids[0] = 255
                Image.fromarray(ids).save(root / "labels" / split / f"{i}.png")


def write_cocostuff(data_dir, n=6):
    """``n`` images a split; the lists hold all of them, all but the first, and all but the last."""
    root = data_dir / "cocostuff"
    for first_id, split in ((100, "train2017"), (900, "val2017")):
        ids = [f"{first_id + index:012d}" for index in range(n)]
        for index, image_id in enumerate(ids):
            save(root / "images" / split / f"{image_id}.jpg", picture(first_id + index))
            save(root / "annotations" / split / f"{image_id}.png", label_map(first_id + index, COCO_FINE_IDS))
        curated = root / "curated" / split
        curated.mkdir(parents=True)
        (curated / "Coco164kFull_Stuff_Coarse.txt").write_text("".join(f"{i}\n" for i in ids))
        (curated / "Coco164kFull_Stuff_Coarse_7.txt").write_text("".join(f"{i}\n" for i in ids[1:]))
        (curated / "Coco164kFew_Stuff_6.txt").write_text("\n".join(ids[:-1]))


def write_cityscapes(data_dir):
    root = data_dir / "cityscapes"
    for split, cities in (("train", ("aachen", "bochum")), ("val", ("frankfurt", "lindau"))):
        for seed, (city, frame) in enumerate(product(cities, range(2))):
            stem = f"{city}_{frame:06d}_000019"
            raw = label_map(seed, CITYSCAPES_RAW_IDS)
            save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", picture(seed))
            for kind in ("labelIds", "instanceIds"):
                save(root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", raw)
            (root / "gtFine" / split / city / f"{stem}_gtFine_polygons.json").write_text("{}")


def write_potsdam(data_dir):
    root = data_dir / "potsdam"
    lists = {"labelled_train": ["3", "1", "20"], "unlabelled_train": ["7"], "labelled_test": ["0", "12", "5"]}
    for folder in ("imgs", "gt"):
        (root / folder).mkdir(parents=True)
    for name, ids in lists.items():
        (root / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))
        for tile in ids:
            savemat(root / "imgs" / f"{tile}.mat", {"img": picture(int(tile), channels=4)})
            if name != "unlabelled_train":
                savemat(root / "gt" / f"{tile}.mat", {"gt": label_map(int(tile), POTSDAM_FINE_IDS)})


def write_directory(data_dir, name="mine", labels=True):
    root = data_dir / name
    for split, n in (("train", 4), ("val", 3)):
        for index in range(n):
            save(root / "imgs" / split / f"{index}.jpg", picture(index))
            if labels:
                save(root / "labels" / split / f"{index}.png", label_map(index, (0, 1, 2, 255)))
    (root / "classes.txt").write_text("red\ngreen\nblue\n")


WRITERS = {
    "cocostuff27": write_cocostuff,
    "cocostuff15": write_cocostuff,
    "cocostuff3": write_cocostuff,
    "cityscapes": write_cityscapes,
    "potsdam": write_potsdam,
    "directory": write_directory,
}
