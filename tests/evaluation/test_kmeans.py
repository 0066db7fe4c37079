from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from conftest import TINY_VIT
from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.views import EvaluationViews
from eagle.evaluation import kmeans
from eagle.evaluation.kmeans import kmeans_centres, sampled_images
from eagle.maps.probe_maps import MapSettings, ProbeMaps
from eagle.models.backbone import build_backbone


class TwoKinds(SegmentationDataset):
    """Images of one colour or another, with noise; counts how many are read."""

    def __init__(self, n):
        super().__init__(Classes(("kind",), np.zeros((1, 3), dtype=np.uint8)), [Path(str(i)) for i in range(n)], None)
        self.read = []

    def image(self, index):
        index = int(self.name(index))
        self.read.append(index)
        draw = np.random.default_rng(index)
        colour = np.array([[200, 40, 40], [40, 90, 200]][index % 2])
        return Image.fromarray((colour + draw.integers(-20, 20, (32, 32, 3))).astype(np.uint8))

    def class_ids(self, path):
        raise AssertionError


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return build_backbone("vit_small", 8, "random", **TINY_VIT)


def centres(backbone, dataset, batch_size=4, num_workers=0):
    views = EvaluationViews(sampled_images(dataset, seed=0), 32)
    return kmeans_centres(Fabric(accelerator="cpu", devices=1), backbone, views, 2, 0, batch_size, num_workers)


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
