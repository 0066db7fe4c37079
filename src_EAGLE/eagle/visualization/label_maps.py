"""k-means label maps, and renumbering of arbitrary labels so that maps can be compared by eye."""

import warnings

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

INITIALISATIONS = 3


def cosine_kmeans(features: Tensor, n_clusters: int, seed: int) -> np.ndarray:
    """Cosine k-means of the patches of one image; the cluster probe and the EiCue codebook also compare by cosine.

    Args:
        features: D×h×w.
        n_clusters: maximum number of clusters; images with fewer distinct patches have fewer.
        seed: seed of the initial centres.

    Returns:
        h×w int labels.
    """
    patches = F.normalize(features.float(), dim=0).flatten(1).T.cpu().numpy()
    kmeans = KMeans(min(n_clusters, len(patches)), n_init=INITIALISATIONS, random_state=seed)
    with warnings.catch_warnings():
        # Fewer distinct patches than clusters, as in a flat image.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit_predict(patches)
    return labels.reshape(features.shape[1:])


def numbered_by_size(labels: np.ndarray) -> np.ndarray:
    """Renumber labels to 0, 1, 2 … by size, the largest first; int64."""
    _, compact, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[compact].reshape(labels.shape)


def numbered_like(labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Renumber labels one-to-one so that as many pixels as possible agree with a reference (Hungarian matching).

    Args:
        labels: H×W, any integers.
        reference: H×W, labels 0, 1, … without gaps.

    Returns:
        H×W int64; surplus labels get the numbers after those of the reference.
    """
    compact = numbered_by_size(labels)
    n = max(compact.max(), reference.max()) + 1
    overlap = np.zeros((n, n), dtype=np.int64)
    np.add.at(overlap, (compact, reference), 1)
    _, names = linear_sum_assignment(overlap, maximize=True)
    return names[compact]
