"""k-means of codes: finite, near full k-means, and honest about bad images."""

import shutil

import numpy as np
import pytest
import torch

from conftest import run_values
from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.datasets.catalog import open_dataset
from eagle.errors import DataError
from eagle.evaluation import kmeans
from eagle.evaluation.kmeans import fast_kmeans_of, kmeans_of_codes
from eagle.segmenter import LitUnsupervisedSegmenter
from miniatures import write_halves


@pytest.fixture(scope="module")
def make_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kmeans")
    write_halves(folder / "data" / "halves", n=9)
    return lambda **overrides: validated(TrainConfig, run_values(folder) | overrides)


def test_kmeans_of_codes__bad_images_are_skipped_or_named(make_config):
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
