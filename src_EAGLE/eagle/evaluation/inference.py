"""Class log-probabilities of images, averaged over the image and its mirror image (method §9)."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.models.backbone import KeyBackbone
from eagle.models.probes import ClusterLookup, upsampled
from eagle.segmenter import LitUnsupervisedSegmenter


class ProbeMaps(Protocol):
    """Anything that maps images to named log-probabilities at a given size.

    Attributes:
        n_clusters: channels of each map, by name.
    """

    n_clusters: dict[str, int]

    def __call__(self, img: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """B×3×H×W normalised image → B×C×size log-probabilities by name."""


class SegmenterProbes(nn.Module):
    """Both probes of a trained segmenter: "linear" and "cluster".

    Args:
        segmenter: in eval mode.
        alpha: sharpness of the cluster probe.
    """

    def __init__(self, segmenter: LitUnsupervisedSegmenter, alpha: float) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.alpha = alpha
        self.n_clusters = {"linear": segmenter.n_classes, "cluster": len(segmenter.cluster_probe.clusters)}

    @torch.no_grad()
    def forward(self, img: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """See ProbeMaps."""
        code = flip_averaged(lambda view: self.segmenter.net.keys_and_code(view)[1], img)
        linear = upsampled(self.segmenter.linear_probe(code).float(), size)
        cluster = self.alpha * self.segmenter.cluster_probe.upsampled_similarity(code, size)
        return {"linear": F.log_softmax(linear, dim=1), "cluster": F.log_softmax(cluster, dim=1)}


class KMeansProbe(nn.Module):
    """Cosine k-means centres on a frozen backbone's keys, read out as the cluster probe is: "kmeans".

    Args:
        backbone: gives K.
        centres: the probe with the k-means centres.
        alpha: its sharpness.
    """

    def __init__(self, backbone: KeyBackbone, centres: ClusterLookup, alpha: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.centres = centres
        self.alpha = alpha
        self.n_clusters = {"kmeans": len(centres.clusters)}

    @torch.no_grad()
    def forward(self, img: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """See ProbeMaps."""
        keys = flip_averaged(self.backbone, img)
        return {"kmeans": F.log_softmax(self.alpha * self.centres.upsampled_similarity(keys, size), dim=1)}


def flip_averaged(features: "nn.Module | Features", img: Tensor) -> Tensor:
    """Mean of an image's feature map and its mirror image's, mirrored back; B×C×h×w."""
    return (features(img) + features(img.flip(dims=[3])).flip(dims=[3])) / 2


class Features(Protocol):
    """Anything that maps B×3×H×W images to B×C×h×w features."""

    def __call__(self, img: Tensor) -> Tensor:
        """B×3×H×W → B×C×h×w."""
