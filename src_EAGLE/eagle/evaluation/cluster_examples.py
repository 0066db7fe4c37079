"""Example windows of each cluster: the squares with its highest mean probability, from different images."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Windows are WINDOW_BLOCKS blocks wide, about WINDOW_SHARE of the image's short side, and start at block borders.
WINDOW_BLOCKS = 4
WINDOW_SHARE = 0.3
# Confidence is summed in integer units, so the sum is exact in any order.
_UNITS = 1 << 16


@dataclass(frozen=True)
class ClusterExample:
    """An example window of a cluster.

    Attributes:
        cluster: the cluster id.
        index: the image's index in the dataset.
        top: first row of the window, in pixels of the evaluated image.
        left: first column.
        side: height and width in pixels.
        confidence: mean probability of the cluster over the window; pixels of other clusters count 0.
    """

    cluster: int
    index: int
    top: int
    left: int
    side: int
    confidence: float


def image_examples(index: int, clusters: np.ndarray, confidence: np.ndarray, n_clusters: int) -> list[ClusterExample]:
    """The window of highest confidence in one image, for each cluster that occurs in a window.

    Args:
        index: the image's index in the dataset.
        clusters: H×W cluster ids.
        confidence: H×W, the probability of each pixel's cluster.
        n_clusters: number of clusters.
    """
    block = max(1, round(WINDOW_SHARE * min(clusters.shape) / WINDOW_BLOCKS))
    rows, columns = (side // block for side in clusters.shape)
    n_blocks = min(WINDOW_BLOCKS, rows, columns)
    whole = np.s_[: rows * block, : columns * block]
    row, column = np.ogrid[whole]
    cells = (clusters[whole].astype(np.int64) * rows + row // block) * columns + column // block
    units = np.rint(confidence[whole] * _UNITS)
    sums = np.bincount(cells.ravel(), units.ravel(), n_clusters * rows * columns).reshape(n_clusters, rows, columns)
    windows = sliding_window_view(sliding_window_view(sums, n_blocks, 1).sum(-1), n_blocks, 2).sum(-1)
    best = windows.reshape(n_clusters, -1).argmax(axis=1)
    side = n_blocks * block
    found = []
    for cluster, (top, left) in enumerate(zip(*np.unravel_index(best, windows.shape[1:]), strict=True)):
        if windows[cluster, top, left] > 0:
            mean = float(windows[cluster, top, left]) / (_UNITS * side**2)
            found.append(ClusterExample(cluster, index, int(top) * block, int(left) * block, side, mean))
    return found


def best_examples(examples: Iterable[ClusterExample], per_cluster: int) -> list[ClusterExample]:
    """The most confident windows of each cluster, ordered by cluster; ties go to the lower image index."""
    ordered = sorted(examples, key=lambda example: (example.cluster, -example.confidence, example.index))
    groups = groupby(ordered, key=lambda example: example.cluster)
    return [example for _, group in groups for example in islice(group, per_cluster)]
