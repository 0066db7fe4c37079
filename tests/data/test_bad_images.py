"""``on_bad_image`` in training, evaluation and cropping."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.commands import provisions as crop_command
from eagle.config.application import parse_command_line
from eagle.config.schema import EvalConfig
from eagle.config.validation import validated
from eagle.data.datamodule import SegmentationDataModule
from eagle.data.datasets.catalog import open_dataset
from eagle.errors import DataError
from eagle.training.run import train
from miniatures import save, write_directory


@pytest.fixture
def root(tmp_path):
    """A directory dataset: training image 1 is truncated, the label of validation image 2 is RGB."""
    write_directory(tmp_path)
    path = tmp_path / "mine/imgs/train/1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    Image.new("RGB", (60, 48)).save(tmp_path / "mine/labels/val/2.png")
    return tmp_path / "mine"


@pytest.fixture
def make_run(root, make_config):
    def make(**overrides):
        values = {
            "pytorch_data_dir": str(root.parent), "dir_dataset_name": "mine", "res": 32, "val_res": 32, "batch_size": 2,
            "max_steps": 4, "val_freq": 2, "scalar_log_freq": 1, "output_root": str(root.parent / "outputs"),
            "experiment_name": "run", "accelerator": "cpu", "on_bad_image": "skip",
        }  # fmt: skip
        return make_config(**{**values, **overrides})

    return make


def test_run__leaves_out_and_lists_bad_images_and_scores_the_rest(make_run, root, caplog):
    run_dir = train(make_run())
    lines = (run_dir / "bad_images.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(root / "imgs/train/1.jpg"), str(root / "labels/val/2.png")]
    assert f"bad images left out: 1 of training, 1 of validation, listed in {run_dir / 'bad_images.txt'}" in caplog.text
    evaluation = validated(EvalConfig, {"num_workers": 0, "accelerator": "cpu", "run_crf": False})
    with pytest.raises(DataError, match=r"2\.png: a label map has one channel"):
        evaluate_checkpoint(run_dir / "last.ckpt", evaluation)
    evaluate_checkpoint(run_dir / "last.ckpt", validated(EvalConfig, {**evaluation, "on_bad_image": "skip"}))
    report = json.loads((run_dir / "last_eval.json").read_text())
    assert report["images"] == 2
    assert report["skipped_images"] == lines[1:]


def test_run__skipping_trains_as_if_the_image_were_not_there(make_run, root):
    skipping = torch.load(train(make_run()) / "last.ckpt", weights_only=True)["state_dict"]
    (root / "imgs/train/1.jpg").unlink()
    without = torch.load(train(make_run(experiment_name="without")) / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(skipping[name], without[name]) for name in without)


def test_run__stops_before_the_first_step_by_default_and_counts_bad_images(make_run, root):
    (root / "imgs/train/3.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.jpg: cannot be .*\(2 of the 4 images checked are bad\)"):
        train(make_run(on_bad_image="error"))
    assert not (root.parent / "outputs").exists()


def test_run__all_void_validation_labels_raise_before_training(make_run, root):
    for path in (root / "labels/val").iterdir():
        save(path, np.full((48, 60), 255, dtype=np.uint8))
    with pytest.raises(DataError, match="every validation label is void"):
        SegmentationDataModule(make_run()).check()


def test_crops__of_the_readable_images_only(root, capsys, make_run):
    words = [f"pytorch_data_dir={root.parent}", "dataset_name=directory", "dir_dataset_name=mine", "splits=train"]
    words += ["num_processes=1", "on_bad_image=skip"]
    crop_command.crop_datasets(parse_command_line(crop_command.CropConfig, words))
    assert capsys.readouterr().out.endswith("15 crops, 15 written; bad images left out: 1\n")
    assert len(open_dataset(make_run(crop_type="five"), "train")) == 15
