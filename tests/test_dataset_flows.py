"""Crop, train two batches and evaluate on a miniature of each dataset."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.functional import five_crop

from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.checkpoints import load_segmenter
from eagle.commands import provisions
from eagle.config.application import parse_command_line
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.data.datasets.catalog import open_dataset, open_whole_dataset
from eagle.data.views import EvaluationViews
from eagle.errors import DataError
from eagle.training.run import train
from miniatures import WRITERS

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = "backbone_kwargs={embed_dim: 48, depth: 4, num_heads: 3, img_size: 112}"
SHORT = ["max_steps=2", "val_freq=2", "scalar_log_freq=1", "n_images=0", "num_workers=0", "accelerator=cpu"]
TINY = [BACKBONE, "dim=32", "res=32", "val_res=32", *SHORT]
EVALUATION = "run_crf=false report=false num_workers=0 accelerator=cpu"
CONFIGS = {
    "cocostuff27": "train_config_cocostuff",
    "cocostuff15": "train_config_cocostuff",
    "cocostuff3": "train_config_cocostuff",
    "cityscapes": "train_config_cityscapes",
    "potsdam": "train_config_potsdam",
    "directory": "train_config_directory",
}


def command_lines(name, data_dir):
    """The words of the three commands, as a user would type them."""
    dataset = [f"dataset_name={name}", f"pytorch_data_dir={data_dir}"]
    training = ["pretrained_weights=random", "crop_type=five", "batch_size=2"]
    if name == "directory":
        dataset.append("dir_dataset_name=mine")
        training.append("model_type=vit_small")
    outputs = [f"output_root={data_dir / 'outputs'}", "experiment_name=run"]
    return {
        "crop_datasets": [*dataset, "splits=train", "num_processes=1"],
        "train_segmentation_eigen": ["--config-name", CONFIGS[name], *dataset, *TINY, *training, *outputs],
        "eval_segmentation": [f"model_paths={data_dir / 'outputs/run/best.ckpt'}", *EVALUATION.split()],
    }


@torch.no_grad()
def linear_accuracy(segmenter):
    """Percent of labelled validation pixels that the linear probe gets right, image by image."""
    cfg = segmenter.cfg
    right = labelled = 0
    for sample in EvaluationViews(open_dataset(cfg, "val"), cfg.val_res):
        img, label = sample["img"][None], sample["label"]
        code = (segmenter(img) + segmenter(img.flip(3)).flip(3)) / 2
        logits = F.interpolate(segmenter.linear_probe(code), label.shape, mode="bilinear", align_corners=False)
        right += int((logits.argmax(dim=1)[0] == label)[label >= 0].sum())
        labelled += int((label >= 0).sum())
    return 100 * right / labelled


def check_run(run_dir, n_images):
    """A run that trained two batches and was scored on whole validation images."""
    report = json.loads((run_dir / "best_eval.json").read_text())
    assert report["images"] == n_images
    expected = linear_accuracy(load_segmenter(run_dir / "best.ckpt"))
    assert report["scores"]["linear"]["published"]["accuracy"] == pytest.approx(expected, abs=0.05)
    assert "loss/total" in (run_dir / "metrics.csv").read_text().splitlines()[0]
    assert (run_dir / "best_grid.png").stat().st_size > 0


# Others share their code, or have a flow below.
FAST_FLOWS = ("cityscapes", "directory")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST_FLOWS)) for n in CONFIGS])
def test_flow__in_this_process(tmp_path, name):
    WRITERS[name](tmp_path)
    words = command_lines(name, tmp_path)
    provisions.crop_datasets(parse_command_line(provisions.CropConfig, words["crop_datasets"]))
    cfg = parse_command_line(TrainConfig, words["train_segmentation_eigen"])
    run_dir = train(cfg)
    evaluate_checkpoint(run_dir / "best.ckpt", parse_command_line(EvalConfig, words["eval_segmentation"]))
    check_run(run_dir, len(open_dataset(cfg, "val")))


def write_released_crops(cfg, split="train"):
    """Crops by the rule of the released script: crop c of image i is file 5·i + c, a label is id + 1, 0 is void."""
    whole = open_whole_dataset(cfg, split)
    folder = Path(cfg.pytorch_data_dir) / "cropped" / f"{cfg.dataset_name}_five_crop_{cfg.crop_ratio}"
    for kind in ("img", "label"):
        (folder / kind / split).mkdir(parents=True)
    for index in range(len(whole)):
        image = whole.image(index)
        size = [int(image.height * cfg.crop_ratio), int(image.width * cfg.crop_ratio)]
        labels = five_crop(Image.fromarray(whole.label(index)), size)
        for number, (crop, label) in enumerate(zip(five_crop(image, size), labels, strict=True), 5 * index):
            crop.save(folder / f"img/{split}/{number}.jpg", "JPEG", quality=75)
            Image.fromarray((np.asarray(label) + 1).astype(np.uint8)).save(folder / f"label/{split}/{number}.png")
    return folder


def test_flow__crops_of_the_release_are_read_as_they_are(tmp_path, caplog):
    name = "cocostuff27"
    WRITERS[name](tmp_path)
    words = command_lines(name, tmp_path)
    cfg = parse_command_line(TrainConfig, words["train_segmentation_eigen"])
    folder = write_released_crops(cfg)
    dataset, whole = open_dataset(cfg, "train"), open_whole_dataset(cfg, "train")
    assert len(dataset) == 5 * len(whole)
    for index in range(len(whole)):
        np.testing.assert_array_equal(dataset.label(5 * index), whole.label(index)[:24, :30])
    assert any((dataset.label(index) == -1).any() for index in range(len(dataset)))
    caplog.clear()
    with caplog.at_level("INFO"):
        run_dir = train(cfg)
    assert [line for line in caplog.messages if "without the record" in line] == [
        f"{folder}/img/train: {len(dataset)} crops found, without the record of crop_datasets.py"
    ]
    evaluate_checkpoint(run_dir / "best.ckpt", parse_command_line(EvalConfig, words["eval_segmentation"]))
    check_run(run_dir, len(open_dataset(cfg, "val")))
    (folder / "img/train/7.jpg").unlink()
    with pytest.raises(DataError, match=r"img/train/7\.jpg: no such file \(1 of .* are missing\); run `python crop"):
        open_dataset(cfg, "train")


def test_flow__crop_type_is_ignored_where_the_release_has_no_crops(tmp_path, caplog):
    WRITERS["directory"](tmp_path)
    words = command_lines("directory", tmp_path)
    cfg = parse_command_line(TrainConfig, words["train_segmentation_eigen"])
    assert open_dataset(cfg, "train").image_path(0) == open_whole_dataset(cfg, "train").image_path(0)
    (line,) = caplog.messages
    assert "crop_type=five is ignored, as in the released code" in line
    provisions.crop_datasets(parse_command_line(provisions.CropConfig, words["crop_datasets"]))
    assert len(open_dataset(cfg, "train")) == 5 * len(open_whole_dataset(cfg, "train"))


def readme_commands():
    """By dataset, the commands of the README's table, in their order."""
    rows = [line.split("|") for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    found = {row[1].strip(): re.findall(r"`(python [^`]+)`", "".join(row[2:])) for row in rows}
    return {name: commands for name, commands in found.items() if commands}


# Cityscapes' and Potsdam's rows differ in names only, whose scripts have a flow below.
@pytest.mark.slow
@pytest.mark.parametrize(("row", "dataset"), [("COCO-Stuff", "cocostuff27"), ("your images", "directory")])
def test_readme__commands_of_the_table_run_as_written(tmp_path, row, dataset):
    """In a copy of the repository with a miniature dataset; only the size of model and run is added."""
    for part in ("src_EAGLE", "configs"):
        shutil.copytree(ROOT / part, tmp_path / part, symlinks=True)
    WRITERS[dataset](tmp_path / "datasets")
    training = ["res=64", "val_res=64", "batch_size=2", "pretrained_weights=random", "model_type=vit_small"]
    sizes = {
        "crop_datasets.py": [],
        "train_segmentation_eigen.py": [*TINY, *training],  # large enough for the tree of clusters
        "eval_segmentation.py": EVALUATION.split(),
    }
    commands = [shlex.split(command) for command in readme_commands()[row]]
    assert len(commands) >= 2
    for _, script, *words in commands:
        done = subprocess.run(
            [sys.executable, script, *words, *sizes[script]], cwd=tmp_path / "src_EAGLE", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    scored = tmp_path / "src_EAGLE" / re.search(r"\[(.+)\]", commands[-1][2])[1]
    assert scored.with_name(f"{scored.stem}_eval.json").is_file()


def reproduce(script, folder, *words, python=sys.executable):
    """Run a reproduction script on the miniature in a folder; returns the run's folder."""
    places = {"PYTHON": str(python), "DATA_DIR": str(folder), "OUTPUT_DIR": str(folder / "outputs")}
    environment = {**os.environ, **places, "WEIGHTS": "random", "EVAL_ARGS": EVALUATION}
    command = [ROOT / f"scripts/reproduce_{script}.sh", *TINY, "batch_size=2", *words]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / f"outputs/reproduce_{script}"


@pytest.mark.parametrize(
    ("script", "cropped", "devices"),
    [("cocostuff", "cocostuff27", 2), ("cityscapes", "cityscapes", 1), ("potsdam", None, 1)],
)
def test_reproduce_script__types_valid_commands(tmp_path, script, cropped, devices):
    """What the script types, written down by a stand-in for Python."""
    written = tmp_path / "commands"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >> {written}; echo >> {written}\n')
    python.chmod(0o755)
    reproduce(script, tmp_path, python=python)
    commands = {line.split("\0")[0]: line.split("\0")[1:-1] for line in written.read_text().splitlines()}
    wanted = ["download_datasets.py", "crop_datasets.py", "train_segmentation_eigen.py", "eval_segmentation.py"]
    assert list(commands) == [name for name in wanted if cropped or "crop" not in name]
    training = parse_command_line(TrainConfig, commands["train_segmentation_eigen.py"])
    assert training.devices == devices, "as released"
    assert training.crop_type == ("five" if cropped else None)
    if cropped:
        crops = parse_command_line(provisions.CropConfig, commands["crop_datasets.py"])
        assert (crops.dataset_name, training.dataset_name) == ([cropped], cropped)
    parse_command_line(provisions.DownloadDatasetsConfig, commands["download_datasets.py"])
    parse_command_line(EvalConfig, commands["eval_segmentation.py"])


@pytest.mark.slow
def test_reproduce_script__whole_flow(tmp_path):
    """On two devices."""
    WRITERS["cocostuff27"](tmp_path)
    check_run(reproduce("cocostuff", tmp_path), 5)


@pytest.mark.slow
def test_reproduce_script__goes_on_where_it_was_cut(tmp_path):
    WRITERS["potsdam"](tmp_path)
    reproduce("potsdam", tmp_path, "max_steps=1")
    run_dir = reproduce("potsdam", tmp_path)
    check_run(run_dir, 3)
    resumed = json.loads((run_dir / "run.json").read_text())[1]["resumed_from"]
    assert resumed == str(run_dir / "last.ckpt")
