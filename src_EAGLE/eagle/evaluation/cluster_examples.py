"""Where each cluster shows itself most clearly: a few square windows a cluster, from different images."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor
from torch.nn import functional as F

# Side of a window by the image's short side.
WINDOW_SHARE = 0.3
# Windows lie this part of their side apart.
WINDOW_STEP = 0.25


@dataclass(frozen=True)
class ClusterExample:
    """A window that a cluster fills.

    Attributes:
        cluster: which.
        index: the image's number in the dataset.
        top: first row of the window, in pixels of the evaluated image.
        left: first column.
        side: rows and columns.
        confidence: mean over the window of the cluster's probability, 0 at pixels of other clusters.
    """

    cluster: int
    index: int
    top: int
    left: int
    side: int
    confidence: float


def image_examples(indices: list[int], clusters: Tensor, probabilities: Tensor) -> list[ClusterExample]:
    """The window of highest confidence for every image and every cluster that occurs in it.

    Args:
        indices: the images' numbers, B.
        clusters: B×H×W cluster ids.
        probabilities: B×C×H×W.
    """
    height, width = probabilities.shape[2:]
    side = max(1, round(WINDOW_SHARE * min(height, width)))
    step = max(1, round(WINDOW_STEP * side))
    chosen = clusters[:, None]
    own = torch.zeros_like(probabilities).scatter_(1, chosen, probabilities.gather(1, chosen))
    confidence = F.avg_pool2d(own, side, step)
    best, place = confidence.flatten(2).max(dim=2)
    rows, columns = step * (place // confidence.shape[3]), step * (place % confidence.shape[3])
    return [
        ClusterExample(cluster, index, top, left, side, value)
        for index, *of_image in zip(indices, rows.tolist(), columns.tolist(), best.tolist(), strict=True)
        for cluster, (top, left, value) in enumerate(zip(*of_image, strict=True))
        if value > 0
    ]


def best_examples(examples: Iterable[ClusterExample], per_cluster: int) -> list[ClusterExample]:
    """The most confident windows of each cluster, in the clusters' order; the lower image number first among equals."""
    ordered = sorted(examples, key=lambda example: (example.cluster, -example.confidence, example.index))
    groups = groupby(ordered, key=lambda example: example.cluster)
    return [example for _, group in groups for example in islice(group, per_cluster)]
