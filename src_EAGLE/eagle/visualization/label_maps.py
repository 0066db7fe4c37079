"""Label maps whose numbers mean nothing: made by k-means, and numbered so that they can be compared by eye."""

import warnings

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

INITIALISATIONS = 3


def cosine_kmeans(features: Tensor, n_clusters: int, seed: int) -> np.ndarray:
    """k-means of one image's patches by direction, as the cluster probe and the EiCue codebook compare them.

    Args:
        features: D×h×w.
        n_clusters: number of clusters, at most; an image of few patches or few different ones has fewer.
        seed: of the initial centres.

    Returns:
        h×w int labels.
    """
    patches = F.normalize(features.float(), dim=0).flatten(1).T.cpu().numpy()
    kmeans = KMeans(min(n_clusters, len(patches)), n_init=INITIALISATIONS, random_state=seed)
    with warnings.catch_warnings():
        # Fewer different patches than clusters: a flat image, or one blank but for some.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit_predict(patches)
    return labels.reshape(features.shape[1:])


def numbered_by_size(labels: np.ndarray) -> np.ndarray:
    """The same map with labels 0, 1, 2 …, the largest first; int64."""
    _, compact, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[compact].reshape(labels.shape)


def numbered_like(labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The same map, its labels renamed to those of the reference so that as many pixels as possible agree.

    Args:
        labels: any labels.
        reference: of the same shape, with labels from 0 on without gaps.

    Returns:
        int64, no two labels with one new name; labels that the reference has none for go on where it ends.
    """
    compact = numbered_by_size(labels)
    n = max(compact.max(), reference.max()) + 1
    overlap = np.zeros((n, n), dtype=np.int64)
    np.add.at(overlap, (compact, reference), 1)
    _, names = linear_sum_assignment(overlap, maximize=True)
    return names[compact]
