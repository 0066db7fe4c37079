import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from sklearn.cluster import KMeans
from torch.nn import functional as F

from conftest import TINY_VIT
from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.loading.views import EvaluationViews
from eagle.evaluation import kmeans
from eagle.evaluation.kmeans import kmeans_centres, sampled_images
from eagle.evaluation.score_tables import comparison_table
from eagle.maps.features import any_size_features
from eagle.maps.probe_maps import MapSettings, ProbeMaps
from eagle.models.backbone import build_backbone
from eagle.models.probes import ClusterLookup


class TwoKinds(SegmentationDataset):
    """Images of one colour or another, with noise; counts how many are read."""

    classes = Classes(("kind",), np.zeros((1, 3), dtype=np.uint8))
    has_labels = False

    def __init__(self, n):
        self.n = n
        self.read = []

    def __len__(self):
        return self.n

    def name(self, index):
        return str(index)

    def image(self, index):
        self.read.append(index)
        draw = np.random.default_rng(index)
        colour = np.array([[200, 40, 40], [40, 90, 200]][index % 2])
        return Image.fromarray((colour + draw.integers(-20, 20, (32, 32, 3))).astype(np.uint8))

    def label(self, index):
        raise AssertionError


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return build_backbone("vit_small", 8, "random", **TINY_VIT)


def centres(backbone, dataset, batch_size=4, num_workers=0):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    views = EvaluationViews(sampled_images(dataset, seed=0), 32)
    return kmeans_centres(trainer, backbone, views, 2, 0, batch_size, num_workers)


def test_kmeans__separates_two_kinds_of_images(backbone):
    dataset = TwoKinds(8)
    probe = ProbeMaps(backbone, 8, {"kmeans": centres(backbone, dataset)}, MapSettings())
    views = EvaluationViews(dataset, 32)
    images = [views[index]["img"] for index in range(8)]
    maps = [probe(img[None])["kmeans"].argmax(dim=1) for img in images]
    agreement = [[float((a == b).float().mean()) for b in maps] for a in maps]
    same = [agreement[i][j] for i in range(8) for j in range(8) if i % 2 == j % 2]
    other = [agreement[i][j] for i in range(8) for j in range(8) if i % 2 != j % 2]
    assert min(same) > max(other), "images of one kind get one map, those of the other kind another"


def test_kmeans__batches_and_workers_change_nothing(backbone, monkeypatch):
    monkeypatch.setattr(kmeans, "MOST_VECTORS", 40)  # 5 of the 16 patches of each of 8 images
    first = centres(backbone, TwoKinds(8)).clusters
    assert torch.allclose(first, centres(backbone, TwoKinds(8), batch_size=3, num_workers=2).clusters, atol=1e-5)


def test_kmeans__reads_a_sample_of_a_large_dataset(backbone, monkeypatch):
    monkeypatch.setattr(kmeans, "MOST_IMAGES", 6)
    dataset = TwoKinds(1000)
    centres(backbone, dataset)
    read = set(dataset.read)
    names = [sampled_images(dataset, seed).name(0) for seed in range(3)]
    assert len(read) == 6
    assert int(names[0]) == min(read)
    assert len(set(names)) == 3, "the seed decides"


def test_kmeans__full_fit_with_ten_starts(backbone, monkeypatch):
    """One start, or mini-batches, would find worse optima and make the baseline too easy to beat."""
    fitted = []

    def spying(*arguments, **values):
        fitted.append(KMeans(*arguments, **values))
        return fitted[-1]

    monkeypatch.setattr(kmeans, "KMeans", spying)
    found = centres(backbone, TwoKinds(8)).clusters.detach().numpy()
    assert (fitted[0].init, fitted[0].n_init) == ("k-means++", 10)
    np.testing.assert_array_equal(found, fitted[0].cluster_centers_)


def test_flip__features_of_a_mirror_image_are_mirrored():
    def features(img):
        return any_size_features(lambda x: F.avg_pool2d(x, 2).cumsum(dim=3), img, 2, None)

    img = torch.randn(1, 3, 8, 8)
    assert torch.allclose(features(img.flip(3)), features(img).flip(3), atol=1e-5)


def test_upsampled_similarity__equals_upsampling_all_channels():
    torch.manual_seed(0)
    probe, code = ClusterLookup(70, 5), torch.randn(2, 70, 4, 6)
    expected = probe.similarity(F.interpolate(code, (13, 17), mode="bilinear"))
    assert torch.allclose(probe.upsampled_similarity(code, (13, 17)), expected, atol=1e-5)


def test_comparison_table__kmeans_stands_in_the_cluster_column():
    def entry(value):
        return {"published": {"mIoU": value, "accuracy": 2 * value}}

    report = {
        "k-means on K": {"kmeans": entry(10.0), "kmeans+crf": entry(11.0)},
        "EAGLE": {"linear": entry(40.0), "cluster": entry(20.0), "linear+crf": entry(41.0), "cluster+crf": entry(21.0)},
    }
    lines = [line.split("  ") for line in comparison_table(report).splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == ["mIoU / accuracy", "linear", "cluster", "linear+crf", "cluster+crf"]
    assert cells[2] == ["k-means on K", "–", "10.0 / 20.0", "–", "11.0 / 22.0"]
    assert cells[3] == ["EAGLE", "40.0 / 80.0", "20.0 / 40.0", "41.0 / 82.0", "21.0 / 42.0"]
