import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eagle.data.datamodule import SegmentationDataModule
from eagle.evaluation.metrics import match_clusters, score
from eagle.training import validation_pictures
from eagle.training.run import train

KINDS = ("grid", "confusion", "frequencies")


def steps_of(run_dir):
    return sorted({int(re.match(r"step_(\d{8})_", path.name)[1]) for path in (run_dir / "pictures").iterdir()})


@pytest.fixture
def drawn(monkeypatch):
    """Arguments of the figures by name."""
    arguments = {}

    def watch(name):
        figure = getattr(validation_pictures, name)
        monkeypatch.setattr(validation_pictures, name, lambda *args: arguments.update({name: args}) or figure(*args))

    for name in ("labelled_validation", "confusion_figure", "frequencies_figure"):
        watch(name)
    return arguments


def test_train__draws_each_validation_and_logs_its_pictures(make_run, tmp_path, drawn):
    run_dir = train(make_run(n_images=2, max_steps=2, tensorboard=True))
    confusion, folder = drawn["labelled_validation"][2], run_dir / "pictures"
    assert {path.name for path in folder.iterdir()} == {f"step_00000002_{kind}.png" for kind in KINDS}
    matched, _, _, unmatched = drawn["confusion_figure"]
    assert (matched == score(confusion[:2], match_clusters(confusion)[:2]).confusion).all()
    assert matched.sum() + unmatched.sum() == confusion.sum() > 0
    names, _, predicted, labelled, _ = drawn["frequencies_figure"]
    assert sorted(predicted) == sorted(confusion.sum(axis=1))
    assert (labelled == confusion.sum(axis=0)).all()
    class_of_cluster = match_clusters(confusion)
    for cluster, count in enumerate(confusion.sum(axis=1)):
        class_id = class_of_cluster[cluster]
        name = f"cluster {cluster} (no class)" if class_id < 0 else f"class {class_id}"
        assert predicted[names.index(name)] == count
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    (score_event,) = events.Scalars("test/cluster/mIoU")
    for kind in KINDS:
        written = np.asarray(Image.open(folder / f"step_00000002_{kind}.png"))
        assert written.std() > 10, f"{kind} is blank"
        (event,) = events.Images(f"validation/{kind}")
        (tmp_path / "event.png").write_bytes(event.encoded_image_string)
        assert (np.asarray(Image.open(tmp_path / "event.png")) == written).all()
        assert event.step == score_event.step == 1, "the step of the validation's scores"


def test_train__without_labels_draws_clusters_alone(make_run, drawn):
    run_dir = train(make_run(labels=False, n_images=4))
    assert {path.name for path in (run_dir / "pictures").iterdir()} == {
        f"step_00000002_{kind}.png" for kind in ("grid", "frequencies")
    }
    names, _, predicted, labelled, _ = drawn["frequencies_figure"]
    assert (list(names), len(labelled)) == ([f"cluster {i}" for i in range(3)], 0)
    assert predicted.sum() == 4 * 32 * 32, "every pixel of every validation image"


def test_train__shows_images_spread_over_the_split_and_prunes_only_its_own_files(make_run, monkeypatch):
    """The pictures are not drawn: a tiny grid stands in."""
    seen = []

    def stand_in(_when, pictures, *_):
        seen.append(pictures)
        return {"grid": Figure(figsize=(0.1, 0.1))}

    monkeypatch.setattr(validation_pictures, "labelled_validation", stand_in)
    cfg = make_run(n_images=3, val_freq=1, max_steps=2, pictures_kept=2)
    run_dir = train(cfg)
    views = [*SegmentationDataModule(cfg).val_dataloader()]
    assert [len(pictures) for pictures in seen] == [3, 3]
    for index, picture in zip((0, 1, 3), seen[0], strict=True):
        batch, row = views[index // 2], index % 2
        assert (picture.img == batch["img"][row]).all()
        assert (picture.label == batch["label"][row].numpy()).all()
        assert picture.clusters.keys() == {"linear", "cluster"}
    (run_dir / "pictures" / "step_00000002_my_note.txt").write_text("mine")
    (run_dir / "pictures" / ".eagle-unfinished-0a_b1c2d.png").write_bytes(b"as a kill leaves it")
    train(make_run(n_images=1, val_freq=1, max_steps=4, pictures_kept=2, ckpt_path="last"))
    (run_dir / "pictures" / "step_00000002_my_note.txt").unlink()
    assert steps_of(run_dir) == [2, 4]
