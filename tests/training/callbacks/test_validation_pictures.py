import csv
import re

import numpy as np
import pytest
import wandb
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eagle.data.loading.datamodule import SegmentationDataModule
from eagle.evaluation.metrics import UnsupervisedMetrics, match_clusters, score
from eagle.figures.validation import ValidationFigures
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training.callbacks import validation_pictures
from eagle.training.callbacks.validation_pictures import kept_validations
from eagle.training.run import train

KINDS = ("grid", "confusion", "frequencies")


def steps_of(run_dir):
    return sorted({int(re.match(r"step_(\d{8})_", path.name)[1]) for path in (run_dir / "pictures").iterdir()})


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def confusions(monkeypatch):
    """The cluster probe's matrices that runs score, one a validation."""
    seen, compute = [], UnsupervisedMetrics.compute

    def watched(metric):
        if metric.prefix == "test/cluster/":
            seen.append(metric.confusion.numpy().copy())
        return compute(metric)

    monkeypatch.setattr(UnsupervisedMetrics, "compute", watched)
    return seen


def test_train__draws_each_validation_and_writes_its_numbers(make_run, confusions):
    run_dir = train(make_run(n_images=2, max_steps=4))
    names = {path.name for path in (run_dir / "pictures").iterdir()}
    suffixes = {"grid.png", "confusion.png", "confusion.csv", "frequencies.png", "frequencies.csv"}
    assert names == {f"step_{step:08}_{suffix}" for step in (2, 4) for suffix in suffixes}
    for name in names:
        if name.endswith(".png"):
            assert np.asarray(Image.open(run_dir / "pictures" / name)).std() > 10, f"{name} is blank"
    for step, confusion in zip((2, 4), confusions, strict=True):
        class_of_cluster = match_clusters(confusion)
        header, *rows = rows_of(run_dir / f"pictures/step_{step:08}_confusion.csv")
        assert header == ["label / predicted", "class 0", "class 1", "no class"]
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows])
        assert (counts[:, :2] == score(confusion, class_of_cluster, False).confusion.T).all()
        assert counts.sum() == confusion.sum() > 0
        header, *rows = rows_of(run_dir / f"pictures/step_{step:08}_frequencies.csv")
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        clusters = [int(cell) for cell in columns["cluster"]]
        assert [int(cell) for cell in columns["predicted_pixels"]] == confusion.sum(axis=1)[clusters].tolist()
        assert [int(cell) for cell in columns["labelled_pixels"][:2]] == confusion.sum(axis=0).tolist()


@pytest.fixture
def pictures(monkeypatch):
    """The pictures of each validation, which are not drawn: a tiny grid stands in."""
    seen = []

    def stand_in(_when, pictures, *_):
        seen.append(pictures)
        return ValidationFigures({"grid": Figure(figsize=(0.1, 0.1))}, {})

    monkeypatch.setattr(validation_pictures, "labelled_validation", stand_in)
    return seen


def test_train__grid_has_n_images_rows_spread_over_the_split(make_run, pictures, monkeypatch):
    predicted, step = {}, LitUnsupervisedSegmenter.validation_step

    def watched(module, batch, batch_idx):
        maps = step(module, batch, batch_idx)
        for row, index in enumerate(batch["index"].tolist()):
            predicted[module.global_step, index] = {name: ids[row] for name, ids in maps.items()}
        return maps

    monkeypatch.setattr(LitUnsupervisedSegmenter, "validation_step", watched)
    cfg = make_run(n_images=3, max_steps=4)
    train(cfg)
    views = [*SegmentationDataModule(cfg).val_dataloader()]
    for n_batches, of_validation in zip((2, 4), pictures, strict=True):
        assert [picture.index for picture in of_validation] == [0, 1, 3]
        for picture in of_validation:
            batch, row = views[picture.index // 2], picture.index % 2
            assert (picture.img == batch["img"][row]).all()
            assert (picture.label == batch["label"][row].numpy()).all()
            expected = predicted[n_batches, picture.index]
            assert picture.clusters.keys() == expected.keys() == {"linear", "cluster"}
            assert all((ids == expected[name].numpy()).all() for name, ids in picture.clusters.items())


def test_train__without_labels_draws_clusters_alone(make_run):
    run_dir = train(make_run(labels=False, n_images=4))
    assert {path.name for path in (run_dir / "pictures").iterdir()} == {
        f"step_00000002_{suffix}" for suffix in ("grid.png", "frequencies.png", "frequencies.csv")
    }
    _, *rows = rows_of(run_dir / "pictures/step_00000002_frequencies.csv")
    assert [row[:4] for row in rows] == [[f"cluster {i}", str(i), "", ""] for i in range(3)]
    assert sum(int(row[4]) for row in rows) == 4 * 32 * 32, "every pixel of every validation image"


def test_train__no_images_no_pictures(make_run):
    assert not (train(make_run(n_images=0)) / "pictures").exists()


def test_train__keeps_the_first_and_the_latest_and_spreads_the_others(make_run, pictures):
    run_dir = train(make_run(n_images=1, val_freq=1, max_steps=5, pictures_kept=3))
    assert steps_of(run_dir) == [1, 3, 5]


def test_train__a_longer_run_prunes_anew_and_leaves_other_files_alone(make_run, pictures):
    run_dir = train(make_run(n_images=1, val_freq=1, max_steps=2, pictures_kept=2))
    assert steps_of(run_dir) == [1, 2]
    (run_dir / "pictures" / "step_00000002_my_note.txt").write_text("mine")
    (run_dir / "pictures" / ".step_00000002_grid-0a_b1c2d.png").write_bytes(b"as a kill leaves it")
    train(make_run(n_images=1, val_freq=1, max_steps=4, pictures_kept=2, ckpt_path="last"))
    (run_dir / "pictures" / "step_00000002_my_note.txt").unlink()
    assert steps_of(run_dir) == [1, 4]


@pytest.mark.parametrize("n_kept", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize(("val_freq", "max_steps"), [(100, 10_000), (3, 13), (7, 7), (10, 5), (1, 10)])
def test_kept_validations__never_more_than_asked_for(n_kept, val_freq, max_steps):
    validations = range(val_freq, max_steps + 1, val_freq)
    kept = kept_validations(n_kept, val_freq, max_steps)
    for latest in validations:
        on_disk = {step for step in validations if step <= latest and (step in kept or step == latest)}
        assert len(on_disk) <= n_kept
    if validations:
        assert kept <= {*validations}
        assert len(kept) == min(n_kept, len(validations))
        assert validations[-1] in kept
        assert n_kept == 1 or validations[0] in kept
        gaps = np.diff(sorted(kept))
        assert not len(gaps) or gaps.max() - gaps.min() <= val_freq, "evenly"


def test_train__loggers_get_the_pictures_of_the_files(make_run, monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    run_dir = train(make_run(n_images=1, max_steps=2, tensorboard=True, wandb=True))
    wandb.finish()
    written = {kind: np.asarray(Image.open(run_dir / f"pictures/step_00000002_{kind}.png")) for kind in KINDS}
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {f"validation/{kind}" for kind in KINDS}
    for kind, pixels in written.items():
        (event,) = events.Images(f"validation/{kind}")
        (run_dir / "event.png").write_bytes(event.encoded_image_string)
        assert (np.asarray(Image.open(run_dir / "event.png")) == pixels).all()
        (score_event,) = events.Scalars("test/cluster/mIoU")
        assert event.step == score_event.step == 1, "the step of the validation's scores"
        (path,) = (run_dir / "wandb").glob(f"offline-run-*/files/media/images/validation/{kind}_*.png")
        assert (np.asarray(Image.open(path).convert("RGB")) == pixels).all()
