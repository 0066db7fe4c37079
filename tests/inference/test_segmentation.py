"""Masks of photographs of any size: pixels, names and colours."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_folders import config

from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.config.schema import EvalConfig
from eagle.config.validation import validated
from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS, ClassMap, named_clusters
from eagle.errors import DataError
from eagle.inference.folders import segment
from eagle.inference.photograph import label_map, sampled
from eagle.inference.segmentation import Legend
from eagle.training.run import train


@pytest.fixture
def checkpoint(run_dir):
    return run_dir / "last.ckpt"


@pytest.mark.parametrize("band_pixels", [50, 1 << 20])
def test_label_map__in_bands_is_bilinear_upsampling_of_the_unpadded_part(monkeypatch, band_pixels):
    monkeypatch.setattr("eagle.inference.photograph.BAND_PIXELS", band_pixels)
    scores = torch.randn(1, 5, 6, 9)
    size, covered = (44, 70), (48, 72)
    whole = torch.nn.functional.interpolate(scores, covered, mode="bilinear")[:, :, : size[0], : size[1]]
    assert torch.allclose(sampled(scores, covered, size, size, slice(0, 44)), whole, atol=1e-5)
    assert (label_map(scores, covered, size, size) == whole.argmax(dim=1)[0].numpy()).mean() > 0.999
    assert label_map(scores, covered, size, (101, 33)).shape == (101, 33)


@pytest.mark.parametrize(("refine", "suffix"), [("none", ""), ("spectral", "+spectral")])
def test_segment__equals_the_evaluations_predictions(make_run, tmp_path, refine, suffix):
    """Masks of images that need no resizing equal the files of run_prediction; colours and shares agree with them."""
    checkpoint = train(make_run()) / "last.ckpt"
    images = sorted((tmp_path / "data/halves/imgs/val").iterdir())
    for path in images:
        Image.open(path).resize((48, 32)).save(path)
        label = tmp_path / "data/halves/labels/val" / path.name
        Image.open(label).resize((48, 32), Image.Resampling.NEAREST).save(label)
    options = {"refine": refine, "crop": False, "run_prediction": True, "num_workers": 0, "accelerator": "cpu"}
    evaluate_checkpoint(checkpoint, validated(EvalConfig, options))
    predictions = checkpoint.parent / "last_predictions"
    for probe in ("cluster", "linear"):
        content = segment(config(checkpoint, images, tmp_path / probe, probe=probe, refine=refine, flip=True))
        assert [entry["name"] for entry in content["classes"]] == ["class 0", "class 1"]
        for path in images:
            predicted = np.asarray(Image.open(predictions / f"{probe}{suffix}" / "ids" / path.name))
            ids = np.asarray(Image.open(tmp_path / probe / f"{path.stem}_ids.png"))
            assert (ids == predicted).mean() > 0.999
            shares = content["images"][str(path)]["shares"]
            names = {**{i: f"class {i}" for i in range(2)}, 255: "no class"}
            assert shares == {names[i]: pytest.approx((ids == i).mean(), abs=1e-5) for i in np.unique(ids).tolist()}
            color = Image.open(tmp_path / probe / f"{path.stem}_color.png")
            assert np.array_equal(np.asarray(color), ids), "a palette PNG whose indices are the ids"
            drawn = np.asarray(color.convert("RGB"))
            for entry in content["classes"]:
                assert (drawn[ids == entry["id"]] == entry["color"]).all()
    assert json.loads((tmp_path / "cluster" / "segments.json").read_text())["map"] == f"cluster{suffix}"


@pytest.mark.parametrize(("scored", "wanted"), [("cluster", "cluster+crf"), ("cluster+crf", "cluster")])
def test_legend__assignments_hold_with_and_without_crf(scored, wanted):
    classes = Classes(("sky", "road"), np.zeros((2, 3), dtype=np.uint8))
    other_probe = {"linear": [0, 1], "linear+crf": [0, 1]}
    legend = Legend(ClassMap(classes, {**other_probe, scored: [1, NO_CLASS, 0]}), wanted, 3, None)
    assert legend.ids(np.array([[0, 1, 2]])).tolist() == [[1, NO_CLASS, 0]]
    assert legend.classes == classes
    assert Legend(ClassMap(classes, other_probe), wanted, 3, None).name(2) == "cluster 2"


def test_shares__sum_to_one_whatever_classes_are_called(tmp_path):
    """A class of the training set may be called "no class"; a cluster so named has none."""
    classes = Classes(("no class", "sky", "sky"), np.zeros((3, 3), dtype=np.uint8))
    ids = np.array([[-1, 0, 1, 1, 2]])
    legend = Legend(ClassMap(classes, {"cluster": [0, 1, 2]}), "cluster", 3, None)
    assert legend.shares(ids) == {"sky": 0.6, "no class": 0.4}
    (tmp_path / "names.txt").write_text("no class\nsky\n\n")
    assert named_clusters(tmp_path / "names.txt", "cluster", 3).assignments == {"cluster": [-1, 0, -1]}


def test_segment__cluster_names_from_a_file(checkpoint, trained, tmp_path):
    """Clusters with equal names form one class; a cluster with an empty line has no class."""
    images = sorted((trained.parents[1] / "data/halves/imgs/val").iterdir())
    numbered = segment(config(checkpoint, images, tmp_path / "numbered"))
    assert [entry["name"] for entry in numbered["classes"]] == ["cluster 0", "cluster 1", "cluster 2"]
    cases = (("ground\nsky\nground\n", [0, 1, 0]), ("\nsky\n\n", [255, 0, 255]), ("sky\nground\nwall", [0, 1, 2]))
    for lines, table in cases:
        listing = tmp_path / "names.txt"
        listing.write_text(lines)
        named = segment(config(checkpoint, images, tmp_path / "named", cluster_names=str(listing)))
        assert [entry["name"] for entry in named["classes"]] == list(dict.fromkeys(lines.split()))
        for path in images:
            before = np.asarray(Image.open(tmp_path / "numbered" / f"{path.stem}_ids.png"))
            after = np.asarray(Image.open(tmp_path / "named" / f"{path.stem}_ids.png"))
            assert np.array_equal(np.array(table)[before], after)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sky\n", r"names\.txt: 1 lines for 2 clusters"),
        (b"\n\n", r"names\.txt: contains no class name"),
        (b"\xff\xfe\x00", r"names\.txt: cannot be read as text"),
    ],
)
def test_named_clusters__bad_file_is_an_error_with_the_reason(tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        named_clusters(tmp_path / "names.txt", "cluster", 2)
