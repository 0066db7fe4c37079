"""Checking a dataset, the check_data.py command, and ``on_bad_image`` in training, evaluation and cropping."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_images import damaged

from conftest import run_values
from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.commands import provisions
from eagle.config.application import parse_command_line, run_command
from eagle.config.schema import DatasetConfig, EvalConfig, TrainConfig
from eagle.config.validation import validated
from eagle.data.check import class_shares_table, inspect_dataset, summary_table
from eagle.data.datamodule import SegmentationDataModule
from eagle.data.datasets.catalog import open_dataset
from eagle.data.datasets.directory import DirectoryDataset
from eagle.errors import DataError, EagleError
from eagle.training.run import train
from miniatures import WRITERS, picture, save, write_directory


@pytest.fixture
def root(tmp_path):
    """Four 60×48 training images, 3 classes and void in equal parts; image 0 is smaller, a PNG, rotated by EXIF."""
    write_directory(tmp_path)
    (tmp_path / "mine/imgs/train/0.jpg").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "mine/imgs/train/0.png", picture(0, (30, 20)), exif=exif)
    save(tmp_path / "mine/labels/train/0.png", np.full((20, 30), 255, dtype=np.uint8))
    return tmp_path / "mine"


def rows(table):
    return {line.split("  ")[0].strip(): line.split("  ", 1)[-1].split() for line in table.splitlines()}


def test_tables__sizes_formats_and_labels(root):
    found = {split: inspect_dataset(DirectoryDataset(root, split), split) for split in ("train", "val")}
    facts = rows(summary_table(found))
    assert facts["images"] == ["4", "3"]
    assert facts["width"] == ["30", "to", "60", "60"]
    assert facts["height"] == ["20", "to", "48", "48"]
    assert facts["EXIF rotation (not applied)"] == ["1", "–"]
    assert facts["formats"] == ["3", ".jpg,", "1", ".png", "3", ".jpg"]
    assert facts["labels entirely void"] == ["1", "0"]
    void = (3 * 60 * 48 / 4 + 600) / (3 * 60 * 48 + 600)
    assert facts["void pixels"] == [f"{void:.1%}", "25.0%"]
    assert facts["classes present"][:3] == ["3", "of", "3"]
    assert rows(class_shares_table(found))["green"] == ["33.33%", "33.33%"]


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["check_data.py", *words])
    run_command(DatasetConfig, provisions.check_data)


def test_command__lists_every_bad_file_and_split(root, monkeypatch, capsys):
    (root / "imgs/train/1.jpg").write_bytes(b"")
    save(root / "labels/train/3.png", np.full((48, 60), 9, dtype=np.uint8))
    save(root / "imgs/val/0.png", picture(0))
    save(root / "imgs/val/1.png", picture(0))
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, f"pytorch_data_dir={root.parent}", "dir_dataset_name=mine")
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad: ")]
    assert len(bad) == 3
    assert bad[0].startswith(f"bad: {root}/imgs/train/1.jpg: cannot be read")
    assert bad[1].startswith(f"bad: {root}/labels/train/3.png: label id 9 is out of range")
    assert "0.png: same name as 0.jpg;" in bad[2]
    assert str(caught.value.code).startswith("error: bad files or splits: 3")


@pytest.mark.parametrize("n", [6, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("cocostuff15", "cocostuff3")])
def test_fuzz__damaged_file_of_any_dataset_is_read_or_named(tmp_path, name, n):
    """A damaged image, label, list or MATLAB file either reads or raises a one-line EagleError that names it."""
    rng = np.random.default_rng(n)
    WRITERS[name](tmp_path)
    keys = {"dataset_name": name, "pytorch_data_dir": str(tmp_path), "dir_dataset_name": "mine"}
    cfg = validated(DatasetConfig, keys)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for _ in range(n):
        path = files[rng.integers(len(files))]
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        lines = []
        for split in ("train", "val"):
            try:
                lines += inspect_dataset(open_dataset(cfg, split), split).bad
            except EagleError as error:
                lines.append(str(error))
        assert [line for line in lines if "\n" in line or str(tmp_path) not in line] == [], path
        path.write_bytes(whole)


@pytest.fixture
def bad(tmp_path):
    """A directory dataset: training image 1 is truncated, the label of validation image 2 is RGB."""
    write_directory(tmp_path)
    path = tmp_path / "mine/imgs/train/1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    Image.new("RGB", (60, 48)).save(tmp_path / "mine/labels/val/2.png")
    return tmp_path / "mine"


@pytest.fixture
def make_run(bad):
    def make(**overrides):
        data = {"pytorch_data_dir": str(bad.parent), "dir_dataset_name": "mine", "dir_dataset_n_classes": 3}
        return validated(TrainConfig, run_values(bad.parent) | data | {"on_bad_image": "skip"} | overrides)

    return make


def test_run__leaves_out_and_names_bad_images_and_scores_the_rest(make_run, bad, caplog):
    run_dir = train(make_run())
    lines = [line.removeprefix("left out: ") for line in caplog.messages if line.startswith("left out: ")]
    assert [line.split(": ")[0] for line in lines] == [str(bad / "imgs/train/1.jpg"), str(bad / "labels/val/2.png")]
    evaluation = validated(EvalConfig, {"num_workers": 0, "accelerator": "cpu", "run_crf": False})
    with pytest.raises(DataError, match=r"2\.png: a label map has one channel"):
        evaluate_checkpoint(run_dir / "last.ckpt", evaluation)
    evaluate_checkpoint(run_dir / "last.ckpt", validated(EvalConfig, {**evaluation, "on_bad_image": "skip"}))
    report = json.loads((run_dir / "last_eval.json").read_text())
    assert report["images"] == 2
    assert report["skipped_images"] == lines[1:]


def test_run__skipping_trains_as_if_the_image_were_not_there(make_run, bad):
    skipping = torch.load(train(make_run()) / "last.ckpt", weights_only=True)["state_dict"]
    (bad / "imgs/train/1.jpg").unlink()
    without = torch.load(train(make_run(experiment_name="without")) / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(skipping[name], without[name]) for name in without)


def test_run__stops_before_the_first_step_by_default_and_counts_bad_images(make_run, bad):
    (bad / "imgs/train/3.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.jpg: cannot be .*\(2 of the 4 images checked are bad\)"):
        train(make_run(on_bad_image="error"))
    assert not (bad.parent / "outputs").exists()


def test_run__all_void_validation_labels_raise_before_training(make_run, bad):
    for path in (bad / "labels/val").iterdir():
        save(path, np.full((48, 60), 255, dtype=np.uint8))
    with pytest.raises(DataError, match="every validation label is void"):
        SegmentationDataModule(make_run()).check()


def test_run__validation_labels_outside_the_central_square_only_raise_before_training(make_run, bad):
    """The rest is not scored, so there would be no score to choose best.ckpt by."""
    label = np.full((48, 60), 255, dtype=np.uint8)
    label[:, :2] = 0
    for path in (bad / "labels/val").iterdir():
        save(path, label)
    with pytest.raises(DataError, match="every validation label is void in the central square"):
        SegmentationDataModule(make_run()).check()


def test_run__one_label_among_many_void_ones_is_enough(make_run, bad, monkeypatch):
    """Also where it is not among the images of the quick check."""
    monkeypatch.setattr("eagle.data.datamodule._QUICK_CHECK", 1)
    for number, path in enumerate(sorted((bad / "labels/val").iterdir())):
        save(path, np.full((48, 60), 255 if number == 0 else 1, dtype=np.uint8))
    SegmentationDataModule(make_run(on_bad_image="error")).check()


def test_crops__of_the_readable_images_only(bad, capsys, make_run):
    words = [f"pytorch_data_dir={bad.parent}", "dataset_name=directory", "dir_dataset_name=mine", "splits=train"]
    words += ["num_processes=1", "on_bad_image=skip"]
    provisions.crop_datasets(parse_command_line(provisions.CropConfig, words))
    assert capsys.readouterr().out.endswith("15 crops, 15 written; bad images left out: 1\n")
    assert len(open_dataset(make_run(crop_type="five"), "train")) == 15
