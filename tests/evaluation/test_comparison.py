import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from conftest import TINY_VIT
from eagle.evaluation.baselines import kmeans_centres
from eagle.evaluation.comparison import comparison_table
from eagle.evaluation.inference import KMeansProbe, flip_averaged
from eagle.models.backbone import build_backbone
from eagle.models.probes import ClusterLookup


def test_kmeans__separates_two_kinds_of_images():
    torch.manual_seed(0)
    backbone = build_backbone("vit_small", 8, "random", **TINY_VIT)
    kinds = torch.randn(2, 3, 32, 32)
    images = [{"img": kinds[i % 2] + 0.01 * torch.randn(3, 32, 32)} for i in range(8)]
    probe = KMeansProbe(backbone, kmeans_centres(backbone, DataLoader(images, 4), 2, seed=0), alpha=4.0)
    maps = [probe(image["img"][None])["kmeans"].argmax(dim=1) for image in images]
    agreement = [[float((a == b).float().mean()) for b in maps] for a in maps]
    same = [agreement[i][j] for i in range(8) for j in range(8) if i % 2 == j % 2]
    other = [agreement[i][j] for i in range(8) for j in range(8) if i % 2 != j % 2]
    assert min(same) > max(other), "images of one kind get one map, those of the other kind another"


def test_flip_averaged__of_a_mirror_image_is_the_mirror_image():
    img = torch.randn(1, 3, 8, 8)
    features = lambda x: F.avg_pool2d(x, 2).cumsum(dim=3)  # noqa: E731
    assert torch.allclose(flip_averaged(features, img.flip(3)), flip_averaged(features, img).flip(3), atol=1e-5)


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
