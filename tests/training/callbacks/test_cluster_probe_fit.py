"""cluster_probe_fit=kmeans: centres from k-means of codes after the first phase and at the end, exactly resumable."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import run_values
from eagle.checkpoints import load_segmenter
from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.datasets.catalog import open_dataset
from eagle.errors import ConfigError, DataError, StoppedRunError
from eagle.evaluation import kmeans
from eagle.evaluation.kmeans import fast_kmeans_of, kmeans_of_codes
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training.callbacks.cluster_probe_fit import ClusterProbeFit
from eagle.training.run import train
from miniatures import write_halves
from training.test_resume import assert_same_run, checkpoint, stop_at

FIRST_PHASE, MAX_STEPS = 4, 9


@pytest.fixture(scope="module")
def make_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    write_halves(folder / "data" / "halves", n=9)

    def make(**overrides):
        values = {"max_steps": MAX_STEPS, "step_schedulers": FIRST_PHASE, "val_freq": 3, "checkpoint_freq": 4}
        return validated(TrainConfig, run_values(folder) | values | {"cluster_probe_fit": "kmeans"} | overrides)

    return make


@pytest.fixture(scope="module")
def straight(make_config):
    return train(make_config(experiment_name="straight"))


def fitted_centres(run_dir):
    """The fit that the checkpoint's own weights give, as unit vectors."""
    segmenter = load_segmenter(run_dir / "last.ckpt")
    cfg, n_clusters = segmenter.cfg, len(segmenter.cluster_probe.clusters)
    images = open_dataset(cfg, "train")
    return F.normalize(kmeans_of_codes(segmenter.clean_codes, images, n_clusters, cfg, torch.device("cpu")), dim=1)


def test_fit__last_checkpoint_holds_kmeans_of_its_own_codes(straight):
    centres = checkpoint(straight)["state_dict"]["cluster_probe.clusters"]
    torch.testing.assert_close(F.normalize(centres, dim=1), fitted_centres(straight))
    assert torch.allclose(centres.norm(dim=1), torch.tensor(32.0).sqrt()), "the length of N(0, 1) centres"


def test_fit__changes_neither_codes_nor_random_draws(make_config, straight):
    """The probe sees detached codes, so a run with online centres has the same head."""
    online = checkpoint(train(make_config(experiment_name="online", cluster_probe_fit="online")))["state_dict"]
    for name, tensor in checkpoint(straight)["state_dict"].items():
        assert torch.equal(tensor, online[name]) == (name != "cluster_probe.clusters"), name


def test_fit__centres_are_replaced_before_the_step_after_the_first_phase(make_config, monkeypatch):
    seen = []
    original = LitUnsupervisedSegmenter.training_step

    def noting(module, batch, batch_idx):
        optimizer = module.trainer.optimizers[0]
        seen.append(
            (module.cluster_probe.clusters.detach().clone(), len(optimizer.state[module.cluster_probe.clusters]))
        )
        return original(module, batch, batch_idx)

    monkeypatch.setattr(LitUnsupervisedSegmenter, "training_step", noting)
    train(make_config(experiment_name="noted"))
    moves = [float((after - before).norm()) for (before, _), (after, _) in itertools.pairwise(seen)]
    assert np.argmax(moves) == FIRST_PHASE - 1
    assert moves[FIRST_PHASE - 1] > 10 * max(move for step, move in enumerate(moves) if step != FIRST_PHASE - 1)
    assert [n for _, n in seen] == [0] + [3] * (FIRST_PHASE - 1) + [0] + [3] * (MAX_STEPS - FIRST_PHASE - 1)


def test_fit__a_run_shorter_than_its_first_phase_is_fitted_at_its_end(make_config):
    run_dir = train(make_config(experiment_name="short", max_steps=3))
    centres = checkpoint(run_dir)["state_dict"]["cluster_probe.clusters"]
    torch.testing.assert_close(F.normalize(centres, dim=1), fitted_centres(run_dir))


@pytest.mark.parametrize("step", [FIRST_PHASE - 2, FIRST_PHASE - 1, FIRST_PHASE, MAX_STEPS - 1])
def test_resume__around_a_fit_equals_the_straight_run(make_config, straight, monkeypatch, step):
    name = f"stopped_{step}"
    with monkeypatch.context() as patch:
        stop_at(patch, "training_step", step)
        if step < MAX_STEPS - 1:
            with pytest.raises(StoppedRunError):
                train(make_config(experiment_name=name))
        else:
            train(make_config(experiment_name=name))
    assert_same_run(train(make_config(experiment_name=name, ckpt_path="last")), straight)


def test_resume__longer_run_goes_on_from_the_trained_centres(make_config, straight):
    train(make_config(experiment_name="longer", max_steps=7))
    assert_same_run(train(make_config(experiment_name="longer", ckpt_path="last")), straight)


def test_resume__finished_run_changes_nothing_but_a_missing_fit_is_made_up_for(make_config, straight, monkeypatch):
    run_dir = straight.with_name("killed")
    with monkeypatch.context() as patch:
        patch.setattr(ClusterProbeFit, "at_end", lambda *_: False)  # as if killed before the fit
        train(make_config(experiment_name="killed"))
    assert not torch.equal(*(checkpoint(run)["state_dict"]["cluster_probe.clusters"] for run in (run_dir, straight)))
    for _ in range(2):
        train(make_config(experiment_name="killed", ckpt_path="last"))
        assert_same_run(run_dir, straight)
        content = (run_dir / "last.ckpt").read_bytes()
    train(make_config(experiment_name="killed", ckpt_path="last"))
    assert (run_dir / "last.ckpt").read_bytes() == content


def test_fit__key_cache_gives_the_same_clusters(make_config, straight):
    run_dir = train(make_config(experiment_name="cached", cache_features="ram"))
    first, second = (checkpoint(run)["state_dict"]["cluster_probe.clusters"] for run in (straight, run_dir))
    torch.testing.assert_close(first, second, atol=0.05, rtol=0)


def test_fit__bad_images_are_skipped_or_named(make_config):
    segmenter = LitUnsupervisedSegmenter(2, make_config())
    images = open_dataset(segmenter.cfg, "train")
    images.image_path(3).rename(images.image_path(3).with_suffix(".kept"))
    (images.image_path(3)).write_bytes(b"no image")
    try:
        cfg = make_config(on_bad_image="skip")
        assert kmeans_of_codes(segmenter.clean_codes, images, 3, cfg, torch.device("cpu")).isfinite().all()
        with pytest.raises(DataError, match=images.image_path(3).name):
            kmeans_of_codes(segmenter.clean_codes, images, 3, make_config(), torch.device("cpu"))
    finally:
        shutil.move(images.image_path(3).with_suffix(".kept"), images.image_path(3))


def test_fit__too_few_patches_are_refused_before_the_first_step(make_config):
    with pytest.raises(
        ConfigError, match="cluster_probe_fit: k-means of 302 clusters needs as many patches, but the 9"
    ):
        train(make_config(experiment_name="few", extra_clusters=300))


def test_clean_codes__have_no_dropout_and_leave_the_mode(make_config):
    torch.manual_seed(0)
    segmenter = LitUnsupervisedSegmenter(2, make_config()).train()
    img = torch.randn(2, 3, 32, 32)
    codes = segmenter.clean_codes({"img": img})
    assert segmenter.net.training
    assert segmenter.net.dropout.training
    assert not segmenter.net.model.training
    assert torch.equal(codes, segmenter.eval()(img))


def test_fast_kmeans__finds_what_full_kmeans_finds(monkeypatch):
    generator = np.random.default_rng(0)
    blobs = generator.normal(size=(4, 1, 20)) * 3 + generator.normal(size=(4, 50, 20)) * 0.1
    vectors = blobs.reshape(-1, 20).astype(np.float32)
    monkeypatch.setattr(kmeans, "CODE_COMPONENTS", 5)
    found = fast_kmeans_of(vectors, 4, seed=0).numpy()
    distances = np.linalg.norm(found[:, None] - blobs.mean(axis=1)[None], axis=2)
    assert distances.min(axis=0).max() < 1e-4


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_fast_kmeans__equal_vectors_give_finite_centres():
    assert fast_kmeans_of(np.ones((6, 8), dtype=np.float32), 3, seed=0).isfinite().all()
