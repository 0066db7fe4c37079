"""fit_cluster_probe.py: new centres in a new file, everything else as it was."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import run_values
from eagle.checkpoints import load_segmenter
from eagle.checkpoints.formats import read_stored
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import validated
from eagle.errors import CheckpointError, ConfigError, DataError
from eagle.evaluation.kmeans import fast_kmeans_of
from eagle.reports.checkpoint_evaluation import evaluate_checkpoint
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.regions import region_means
from eagle.training.run import train
from fit_cluster_probe import FitConfig, fit
from miniatures import write_halves


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run and its evaluation."""
    folder = tmp_path_factory.mktemp("fit")
    write_halves(folder / "data" / "halves", n=6)
    run_dir = train(validated(TrainConfig, run_values(folder)))
    evaluation = {"run_crf": False, "report": False, "num_workers": 0, "accelerator": "cpu"}
    evaluate_checkpoint(run_dir / "last.ckpt", validated(EvalConfig, evaluation))
    return run_dir


def fit_checkpoint(checkpoint, output=None, **values):
    place = {} if output is None else {"output": str(output)}
    machine = {"num_workers": 0, "accelerator": "cpu"}
    fit(validated(FitConfig, {"checkpoint": str(checkpoint), **machine, **place, **values}))


@pytest.mark.parametrize("name", ["fitted.ckpt", "fitted.safetensors"])
def test_fit__replaces_the_cluster_probe_alone(run_dir, tmp_path, name):
    source = run_dir / "last.ckpt"
    before = source.read_bytes()
    fit_checkpoint(source, tmp_path / name)
    assert source.read_bytes() == before
    original, fitted = load_segmenter(source), load_segmenter(tmp_path / name)
    assert fitted.cfg == original.cfg
    for key, tensor in fitted.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[key]) == (key != "cluster_probe.clusters"), key
    assert list(read_stored(tmp_path / name).class_map.assignments) == ["linear"], "the old matching is gone"


def test_fit__centres_are_kmeans_of_all_training_images_region_means(run_dir, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "eagle.reports.cluster_probe_fit.region_means", lambda *given: seen.append(given) or region_means(*given)
    )
    fit_checkpoint(run_dir / "last.ckpt", tmp_path / "new.ckpt")
    segmenter = load_segmenter(run_dir / "last.ckpt")
    code, cue = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert len(code) == 6
    vectors = np.concatenate([means.numpy() for means in region_means(code, cue)])
    expected = fast_kmeans_of(vectors, len(segmenter.cluster_probe.clusters), seed=0)
    fitted = load_segmenter(tmp_path / "new.ckpt").cluster_probe.clusters
    torch.testing.assert_close(F.normalize(fitted, dim=1), F.normalize(expected, dim=1))
    assert torch.allclose(fitted.norm(dim=1), torch.tensor(float(fitted.shape[1])).sqrt()), "the length of N(0, 1)"


def test_fit__writes_beside_the_checkpoint_unless_told_otherwise(run_dir, capsys):
    fit_checkpoint(run_dir / "best.ckpt")
    assert load_segmenter(run_dir / "best_regions.ckpt")
    assert f"{run_dir / 'best_regions.ckpt'}: {run_dir / 'best.ckpt'} with" in capsys.readouterr().out


def test_fit__never_overwrites_its_input(run_dir, tmp_path):
    source = run_dir / "last.ckpt"
    (tmp_path / "link.ckpt").symlink_to(source)
    for output in (source, tmp_path / "link.ckpt"):
        with pytest.raises(CheckpointError, match="is the checkpoint to read; give another name"):
            fit_checkpoint(source, output)


def test_fit__other_suffixes_are_refused_first(run_dir, tmp_path):
    with pytest.raises(CheckpointError, match=r"new.pth: a checkpoint's name ends in .ckpt or .safetensors"):
        fit_checkpoint(run_dir / "last.ckpt", tmp_path / "new.pth")
    assert not list(tmp_path.iterdir())


def test_fit__missing_training_images_are_named(run_dir, tmp_path):
    with pytest.raises((ConfigError, DataError), match=str(tmp_path)):
        fit_checkpoint(run_dir / "last.ckpt", tmp_path / "new.ckpt", pytorch_data_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_fit__too_few_regions_for_the_clusters_are_refused(run_dir, tmp_path):
    cfg = {**load_segmenter(run_dir / "last.ckpt").cfg, "extra_clusters": 300}
    many = LitUnsupervisedSegmenter(2, cfg)
    torch.save({"state_dict": many.state_dict(), "hyper_parameters": dict(many.hparams)}, tmp_path / "many.ckpt")
    with pytest.raises(DataError, match="k-means of 302 clusters needs as many vectors"):
        fit_checkpoint(tmp_path / "many.ckpt", tmp_path / "new.ckpt")
