"""Neighbours of training images: the search, and runs that draw positives from them."""

import csv

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from eagle.errors import ConfigError
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training import neighbours
from eagle.training.callbacks.neighbours import FILE_NAME, PositiveNeighbours
from eagle.training.neighbours import nearest_neighbours
from eagle.training.run import train
from miniatures import write_halves


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_nearest_neighbours__equal_a_sort_of_all_similarities(monkeypatch, block):
    monkeypatch.setattr(neighbours, "ROW_BLOCK", block)
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)) * torch.rand(30, 1)
    usable = torch.ones(30, dtype=torch.bool)
    usable[4] = False
    similarity = F.cosine_similarity(features[:, None], features, dim=2)
    expected = []
    for image in range(30):
        order = similarity[image].argsort(descending=True).tolist()
        expected.append([other for other in order if other not in (image, 4)][:7])
    assert nearest_neighbours(features, usable).tolist() == expected


def test_nearest_neighbours__few_images_have_fewer_and_one_has_none():
    usable = torch.tensor([True, True, False])
    assert nearest_neighbours(torch.randn(3, 4), usable)[:2].tolist() == [[1], [0]]
    with pytest.raises(ConfigError, match=r"^positives: knn needs at least two readable training images"):
        nearest_neighbours(torch.randn(1, 4), usable[:1])


def rows(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def parameters(run_dir):
    return torch.load(run_dir / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture
def make_knn_run(make_run, tmp_path):
    """A run of five steps with neighbours on nine images."""
    write_halves(tmp_path / "data" / "halves", n=9)
    return lambda **overrides: make_run(**({"positives": "knn", "max_steps": 5} | overrides))


@pytest.mark.parametrize("lost", [False, True])
def test_resume__draws_the_neighbours_of_the_straight_run(make_knn_run, monkeypatch, lost):
    """It reads them from the run folder, or finds them again."""
    straight = train(make_knn_run(experiment_name="straight"))
    stopped = train(make_knn_run(experiment_name="stopped", max_steps=3))
    searches, search = [], PositiveNeighbours._found
    monkeypatch.setattr(PositiveNeighbours, "_found", lambda *given: searches.append(1) or search(*given))
    if lost:
        (stopped / FILE_NAME).unlink()
    train(make_knn_run(experiment_name="stopped", ckpt_path="last", num_workers=1))
    assert len(searches) == lost
    assert rows(stopped) == rows(straight)
    ours, theirs = parameters(stopped), parameters(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_train__neighbours_keys_come_from_the_cache(make_knn_run, tmp_path, monkeypatch):
    """The search fills it, so that training computes the keys of augmented views alone."""
    cfg = make_knn_run(cache_features="disk", cache_dir=str(tmp_path / "cache"))
    in_training, step = [], LitUnsupervisedSegmenter.training_step

    def watched(segmenter, batch, batch_idx):
        hook = segmenter.net.model.register_forward_pre_hook(lambda _module, given: in_training.append(len(given[0])))
        result = step(segmenter, batch, batch_idx)
        hook.remove()
        assert sum(in_training) <= int(batch["changed"].sum())
        in_training.clear()
        return result

    monkeypatch.setattr(LitUnsupervisedSegmenter, "training_step", watched)
    assert (train(cfg) / FILE_NAME).exists()


def test_train__a_bad_image_is_nobodys_neighbour(make_knn_run, tmp_path):
    cfg = make_knn_run(on_bad_image="skip")
    bad = sorted((tmp_path / "data/halves/imgs/train").iterdir())[3]
    bad.write_bytes(b"no image")
    found = load_file(train(cfg) / FILE_NAME)["neighbours"]
    assert found.shape == (9, 7)
    assert not (found == 3).any()
