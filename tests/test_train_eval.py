"""Train and evaluate on a miniature directory dataset, as the commands do."""

import csv
import json
import logging
import os
import re
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import eagle
from conftest import run_values
from eagle import checkpoint_evaluation, distributed
from eagle.checkpoint_evaluation import evaluate_checkpoint, evaluate_checkpoints
from eagle.checkpoints import load_segmenter
from eagle.config.refinement import refinement_of_name
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import validated
from eagle.distributed import chosen_precision, set_float32_precision
from eagle.errors import CheckpointError, ConfigError, DataError, WeightsError, one_line
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.maps.probe_maps import MapSettings
from eagle.models.backbone import KeyBackbone
from eagle.spectral import eicue
from eagle.spectral.refinement import spectral_refinement
from eagle.training.run import _warn_about_batch, train
from miniatures import save, write_halves


def eval_config(**overrides):
    return validated(EvalConfig, {"num_workers": 0, "n_images": 0, "report": False, "accelerator": "cpu"} | overrides)


def logged(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_train__leaves_checkpoints_config_and_metrics(run_dir):
    rows = logged(run_dir)
    assert {"best.ckpt", "last.ckpt", "config.yml", "metrics.csv"} <= {path.name for path in run_dir.iterdir()}
    totals = [float(row["loss/total"]) for row in rows if row["loss/total"]]
    assert len(totals) == 3, "one logged step is one batch"
    assert np.isfinite(totals).all()
    assert [(row["step"], row["λ"]) for row in rows if row["loss/total"]] == [("1", "0.0"), ("2", "0.0"), ("3", "0.0")]
    assert any(row["test/cluster/mIoU"] for row in rows)
    checkpoint = torch.load(run_dir / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3


def test_train__from_python_takes_a_configuration_and_keys_as_the_command_does(make_run, tmp_path):
    make_run()  # writes the data
    values = run_values(tmp_path) | {"max_steps": 1, "model_type": "vit_small", "fit_clusters": "off"}
    folder = eagle.train("train_config_directory", **values)
    assert (folder / "last.ckpt").is_file()
    with pytest.raises(ConfigError, match="max_steps"):
        eagle.train("train_config_directory", max_step=3)


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16-mixed"), (False, "32-true")])
def test_precision__auto_is_bfloat16_where_the_device_computes_it(monkeypatch, caplog, native, chosen):
    monkeypatch.setattr(distributed, "computes_bfloat16", lambda _: native)
    assert chosen_precision(eval_config(precision="auto")) == chosen
    assert chosen_precision(eval_config(precision="bf16-mixed")) == "bf16-mixed"
    assert ("slower" in caplog.text) != native


def test_matmul_precision__holds_in_training_and_evaluation_but_for_the_spectral_part(make_run, monkeypatch, request):
    seen = []

    def record(owner, name):
        function = getattr(owner, name)

        def recorded(*args, **kwargs):
            seen.append((name, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, recorded)

    record(KeyBackbone, "forward")
    record(eicue, "smallest_eigenpairs")
    request.addfinalizer(partial(set_float32_precision, "highest"))
    run_dir = train(make_run(max_steps=1, matmul_precision="high"))
    assert {*seen} == {("forward", "high", True), ("smallest_eigenpairs", "highest", True)}
    seen.clear()
    set_float32_precision("highest")
    evaluate_checkpoint(run_dir / "last.ckpt", eval_config(run_crf=False, matmul_precision="high"))
    assert {*seen} == {("forward", "high", True)}


def test_train__without_labels_watches_the_label_free_loss(make_run):
    run_dir = train(make_run(labels=False))
    rows = logged(run_dir)
    assert any(row["val/loss"] for row in rows)
    assert not any(row.get("test/cluster/mIoU") for row in rows)
    assert (run_dir / "best.ckpt").is_file()
    with pytest.raises(DataError, match="no labels"):
        evaluate_checkpoint(run_dir / "best.ckpt", eval_config(run_crf=False))


def test_train__scores_are_0_where_every_labelled_pixel_is_in_an_extra_cluster(make_run, monkeypatch):
    """Without logged scores, Lightning could not find the monitored key and the run would end in its traceback."""
    update = UnsupervisedMetrics.update

    def all_extra(metric, preds, target):
        update(metric, torch.full_like(preds, metric.n_classes) if metric.extra_clusters else preds, target)

    monkeypatch.setattr(UnsupervisedMetrics, "update", all_extra)
    run_dir = train(make_run(extra_clusters=3, n_images=2))
    (scored,) = [row for row in logged(run_dir) if row["test/cluster/mIoU"]]
    assert float(scored["test/cluster/mIoU"]) == float(scored["test/cluster/Accuracy"]) == 0
    assert float(scored["test/linear/mIoU"]) > 0
    assert (run_dir / "best.ckpt").is_file()


@pytest.mark.parametrize(
    ("values", "world_size", "expected"),
    [
        ({"dataset_name": "cocostuff27"}, 2, ""),
        ({"dataset_name": "cocostuff27"}, 1, "32 images per step (1 × 32), the released cocostuff27 run had 64"),
        ({"dataset_name": "directory"}, 3, ""),
        ({"dataset_name": "directory", "batch_size": 1}, 2, "no negative pairs"),
        ({"dataset_name": "directory", "batch_size": 1, "gather_batch": True}, 2, ""),
    ],
)
def test_train__warns_of_batches_without_negatives_or_unlike_the_released(caplog, values, world_size, expected):
    _warn_about_batch(validated(TrainConfig, values), world_size)
    assert expected in caplog.text
    assert len(caplog.records) == bool(expected)


@pytest.mark.parametrize(("accelerator", "devices"), [("gpu", 2), ("cpu", None), ("nope", 1), ("cpu", "many")])
def test_train__devices_that_are_not_there_are_named_in_one_line(make_run, accelerator, devices):
    with pytest.raises(ConfigError, match=re.escape(f"accelerator={accelerator} devices={devices}: ")) as caught:
        train(make_run(accelerator=accelerator, devices=devices))
    assert "\n" not in one_line(caught.value)


def test_train__never_writes_over_another_run(make_run, run_dir):
    with pytest.raises(ConfigError, match="already holds a run"):
        train(make_run(output_root=str(run_dir.parent), experiment_name=run_dir.name))


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"res": 30}, ConfigError, r"res: 30 is not a multiple of the patch size 8; use 24 or 32"),
        ({"eigen_cluster": 17}, ConfigError, r"eigen_cluster: 17 eigenvectors .* res=32 has 16 of 8×8 pixels"),
        ({"pretrained_weights": "none.pth"}, WeightsError, r"none\.pth: no such weights file"),
        ({"dir_dataset_name": "nowhere"}, DataError, r"nowhere/imgs/train: no such folder"),
    ],
)
def test_train__mistakes_are_reported_before_training(make_run, tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        train(make_run(**overrides))
    assert not list(tmp_path.glob("outputs/**/*.ckpt"))


def test_evaluate__writes_json_and_pictures_beside_the_checkpoint(run_dir):
    content = evaluate_checkpoint(run_dir / "best.ckpt", eval_config(n_images=2, report=True))
    written = json.loads((run_dir / "best_eval.json").read_text())
    assert written == json.loads(json.dumps(content))
    assert set(written["scores"]) == {"linear", "cluster", "linear+crf", "cluster+crf"}
    assert list(written["scores"]["cluster"]["published"]["IoU"]) == ["class 0", "class 1"]
    assert [entry["name"] for entry in written["class_map"]["classes"]] == ["class 0", "class 1"]
    assert sorted(written["class_map"]["assignments"]["cluster"]) == [-1, 0, 1]
    assert written["class_map"]["assignments"]["linear+crf"] == [0, 1]
    for name in ("best_grid.png", "best_confusion.png"):
        assert Image.open(run_dir / name).size[0] > 100
    report = (run_dir / "best_report.html").read_text(encoding="utf-8")
    assert f"{written['scores']['cluster+crf']['published']['mIoU']:.2f}" in report
    assert "max_steps: 3" in report, "the training configuration"


def test_evaluate__a_folder_that_cannot_be_written_to(run_dir, tmp_path, monkeypatch, capsys):
    """It is named before the work, another one takes the files, and a full disk costs no scores."""
    (tmp_path / "file").touch()
    paths = [run_dir / "best.ckpt", run_dir / "last.ckpt"]
    before = sorted(run_dir.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_evaluation, "load_segmenter", None)
        with pytest.raises(NotADirectoryError, match="file/x"):
            evaluate_checkpoints(paths[:1], eval_config(run_crf=False, output_dir=str(tmp_path / "file" / "x")))
    elsewhere = eval_config(run_crf=False, output_dir=str(tmp_path / "out"))
    evaluate_checkpoints(paths, elsewhere)
    assert {"best_eval.json", "last_eval.json", "runs.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert sorted(run_dir.iterdir()) == before

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_evaluation.tables, "write_json", full)
    capsys.readouterr()
    with pytest.raises(OSError, match="No space left"):
        evaluate_checkpoint(paths[0], elsewhere)
    assert "strict mIoU" in capsys.readouterr().out


def test_evaluate__spectral_maps_are_probabilities_smoothed_on_the_patch_graph(run_dir):
    segmenter = load_segmenter(run_dir / "last.ckpt")
    img = torch.randn(2, 3, 40, 52)  # padded to 5×7 patches
    maps = segmenter.probe_maps(MapSettings(refinement=refinement_of_name("spectral")))(img)
    code = segmenter.probe_maps(MapSettings()).patch_features(img)
    probs = segmenter.cluster_probe(code, 4.0)[1]
    expected = torch.nn.functional.interpolate(spectral_refinement(probs, code), (40, 56), mode="bilinear")
    torch.testing.assert_close(maps["cluster+spectral"], expected[..., :52])
    torch.testing.assert_close(maps["linear+spectral"].sum(dim=1), torch.ones(2, 40, 52))


def test_evaluate__without_flip_scores_as_validation_does(run_dir):
    content = evaluate_checkpoint(run_dir / "best.ckpt", eval_config(flip=False, refine="spectral"))
    assert list(content["scores"]) == ["linear", "cluster", "linear+spectral", "cluster+spectral"]
    assert content["class_map"]["assignments"]["linear+spectral"] == [0, 1], "the linear probe is not matched"
    (validated,) = [row for row in logged(run_dir) if row["test/cluster/mIoU"]]
    for probe in ("linear", "cluster"):
        scores = content["scores"][probe]["published"]
        assert scores["mIoU"] == pytest.approx(float(validated[f"test/{probe}/mIoU"]), abs=1e-3)
        assert scores["accuracy"] == pytest.approx(float(validated[f"test/{probe}/Accuracy"]), abs=1e-3)


def test_evaluate__several_again_after_a_label_was_edited(run_dir, validation_folder, caplog):
    paths = [run_dir / "best.ckpt", run_dir / "last.ckpt"]
    cfg = eval_config(run_crf=False, pytorch_data_dir=str(validation_folder.parent))
    with caplog.at_level(logging.INFO):
        evaluate_checkpoints(paths, cfg)
        evaluate_checkpoints(paths, cfg)
        assert caplog.text.count("scored before") == 2
        label = next((validation_folder / "labels/val").iterdir())
        os.utime(label, ns=(0, 0))
        evaluate_checkpoints(paths, cfg)
    assert caplog.text.count("scored before") == 2


def test_evaluate__predictions_are_the_scored_maps(run_dir, trained):
    """They have their images' names, and scoring the PNGs again gives the JSON's strict accuracy."""
    labels = trained.parents[1] / "data/halves/labels/val"
    content = evaluate_checkpoint(run_dir / "last.ckpt", eval_config(run_crf=False, run_prediction=True, crop=False))
    palette = [entry["color"] for entry in content["class_map"]["classes"]]
    for name in ("linear", "cluster"):
        right = labelled = 0
        folder = run_dir / "last_predictions" / name
        assert sorted(path.name for path in (folder / "ids").iterdir()) == [f"{i}.png" for i in range(4)]
        for i in range(4):
            label = Image.open(labels / f"{i}.png").resize((38, 32), Image.Resampling.NEAREST)
            ids, label = np.asarray(Image.open(folder / f"ids/{i}.png")), np.asarray(label)
            assert ids.shape == (32, 38)
            right += (ids == label)[label != 255].sum()
            labelled += (label != 255).sum()
            drawn = np.asarray(Image.open(folder / f"color/{i}.png"))
            for class_id in np.unique(ids):
                color = palette[class_id] if class_id != 255 else [0, 0, 0]
                assert (drawn[ids == class_id] == color).all()
        assert content["scores"][name]["strict"]["accuracy"] == pytest.approx(100 * right / labelled)


@pytest.fixture
def validation_folder(tmp_path):
    """The validation part of another dataset for the shared checkpoints."""
    write_halves(tmp_path / "halves")
    return tmp_path / "halves"


def test_evaluate__whole_images_of_any_shape_whatever_the_batch_size(run_dir, validation_folder):
    """Shapes differ within a batch, sides are not multiples of the patch size, and one image is smaller than res."""
    for i, size in enumerate([(40, 48), (64, 37), (9, 12)]):
        rng = np.random.default_rng(i)
        save(validation_folder / f"imgs/val/{i}.png", rng.integers(0, 255, (*size, 3), dtype=np.uint8))
        save(validation_folder / f"labels/val/{i}.png", rng.integers(0, 2, size, dtype=np.uint8))
    keys = {"crop": False, "run_crf": False, "pytorch_data_dir": str(validation_folder.parent)}
    scores = [
        evaluate_checkpoint(run_dir / "last.ckpt", eval_config(**keys | overrides))["scores"]
        for overrides in ({"batch_size": 1}, {"batch_size": 3, "num_workers": 2}, {"crop": True})
    ]
    assert scores[0] == scores[1]
    assert scores[0]["linear"] != scores[2]["linear"]


def test_evaluate__void_labels_only_is_one_clear_error(run_dir, validation_folder):
    for path in (validation_folder / "labels/val").iterdir():
        save(path, np.full((40, 48), 255, dtype=np.uint8))
    with pytest.raises(DataError, match="every label of the dataset is void"):
        evaluate_checkpoint(
            run_dir / "best.ckpt", eval_config(run_crf=False, pytorch_data_dir=str(validation_folder.parent))
        )


def test_evaluate__several_checkpoints_are_compared_and_missing_ones_reported_first(run_dir, capsys):
    paths = [run_dir / "best.ckpt", run_dir / "last.ckpt"]
    with pytest.raises(CheckpointError, match=r"model_paths: .*nowhere\.ckpt: no such checkpoint"):
        evaluate_checkpoints([*paths, run_dir / "nowhere.ckpt"], eval_config(run_crf=False))
    assert not (run_dir / "best_eval.json").exists()
    evaluate_checkpoints(paths, eval_config(run_crf=False))
    assert "strict mIoU" in capsys.readouterr().out
    with (run_dir / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["map"] for row in rows if row["map"] != "kmeans"] == 2 * ["linear", "cluster"]


def test_evaluate__dataset_with_other_classes_is_refused(run_dir):
    checkpoint = torch.load(run_dir / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["cfg"]["dir_dataset_n_classes"] = 3
    torch.save(checkpoint, run_dir / "other.ckpt")
    with pytest.raises(ConfigError, match="has 3 classes, the checkpoint 2"):
        evaluate_checkpoint(run_dir / "other.ckpt", eval_config(run_crf=False))


def test_evaluate__k_means_stands_beside_the_trained_probes(run_dir, trained, monkeypatch, capsys):
    """Of two checkpoints with one backbone, k-means is fitted once, and no image passes the backbone twice."""
    images = []
    compute = KeyBackbone.forward
    monkeypatch.setattr(KeyBackbone, "forward", lambda self, img: images.append(len(img)) or compute(self, img))
    evaluate_checkpoints([run_dir / "best.ckpt", run_dir / "last.ckpt"], eval_config(run_crf=False, kmeans=True))
    assert "k-means on K" in capsys.readouterr().out
    content = json.loads((run_dir / "last_eval.json").read_text())
    # The halves differ in colour, so k-means separates them on any keys.
    assert content["kmeans"]["cluster"]["strict"]["accuracy"] > 50
    assert content["kmeans"] == json.loads((run_dir / "best_eval.json").read_text())["kmeans"]
    n_train = len(list((trained.parents[1] / "data/halves/imgs/train").iterdir()))
    assert sum(images) == 2 * 4 + n_train, "four validation images and their mirror images, and those of k-means"
    (run_dir / "last_eval.json").unlink()
    alone = evaluate_checkpoint(run_dir / "last.ckpt", eval_config(run_crf=False))
    assert alone["scores"] == content["scores"]
