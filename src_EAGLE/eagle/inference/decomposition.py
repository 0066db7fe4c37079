"""Laplacian eigenvectors and EiCue of one image, with k-means of the keys for comparison."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

from eagle.data.views import image_tensor, normalize
from eagle.errors import DataError
from eagle.models.backbone import KeyBackbone
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.eicue import eicue, laplacian_eigenvectors

# Without a checkpoint.
DEFAULT_EIGENVECTORS = 3
DEFAULT_LABELS = 8
INITIALISATIONS = 3
# The affinity and the Laplacian of this many patches take 1.2 GB; a full eigendecomposition (rarely needed) takes more.
MAX_PATCHES = 10_000


class Decomposition(NamedTuple):
    """Eigenvectors and label maps of one image, on its grid of patches.

    Attributes:
        eigenvectors: n×h×w float32, signs fixed, without the trivial one.
        cue: h×w int64 EiCue labels 0, 1, …, numbered by size, the largest first.
        kmeans: h×w int64 clusters of the keys, each numbered as the EiCue label that it overlaps most.
    """

    eigenvectors: np.ndarray
    cue: np.ndarray
    kmeans: np.ndarray


@torch.no_grad()
def eigenvectors_and_cue(
    segmenter: LitUnsupervisedSegmenter, code: Tensor, img: Tensor, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors of one image's Laplacian and its EiCue by the trained codebook, computed as in training.

    Args:
        segmenter: in eval mode.
        code: 1×D×h×w.
        img: 1×3×H×W, normalised.
        n: number of eigenvectors, not counting the trivial one.

    Returns:
        n×h×w float32 by ascending eigenvalue, without the trivial one; and h×w int64 labels.
    """
    cfg, grid = segmenter.cfg, (code.shape[2], code.shape[3])
    # At least as many as in training, so that the vectors do not depend on n.
    k = max(1 + n, cfg.eigen_cluster)
    options = (cfg.color_affinity, cfg.eigensolver, cfg.eigen_signs, cfg.eicue_affinity)
    vectors = laplacian_eigenvectors(code, img, k, *options)
    _, cue = eicue(vectors[:, :, : cfg.eigen_cluster], grid, segmenter.train_cluster_probe_eigen)
    return _maps(vectors, grid)[:n].float().cpu().numpy(), cue[0].cpu().numpy()


@torch.no_grad()
def decompose(
    backbone: KeyBackbone, segmenter: LitUnsupervisedSegmenter | None, img: Tensor, cfg: Any
) -> Decomposition:
    """Decompose an image as in training: Laplacian of code and colour affinity, EiCue from the trained codebook.

    Without a segmenter, normalised keys replace the codes. Cosine k-means of the eigenvectors replaces the codebook,
    which compares by cosine too.

    Args:
        backbone: the segmenter's, if there is one.
        segmenter: in eval mode; None for a bare backbone.
        img: 1×3×H×W, normalised, with sides that are multiples of the patch size; on the backbone's device.
        cfg: has n_eigenvectors, n_clusters and seed, see VisualizeConfig.
    """
    keys = backbone(img)
    if segmenter is not None:
        n = cfg.n_eigenvectors or segmenter.cfg.eigen_cluster - 1
        eigenvectors, cue = eigenvectors_and_cue(segmenter, segmenter.net(keys), img, n)
    else:
        n = cfg.n_eigenvectors or DEFAULT_EIGENVECTORS
        vectors = laplacian_eigenvectors(F.normalize(keys.float(), dim=1), img, 1 + n)
        maps = _maps(vectors, (keys.shape[2], keys.shape[3]))
        cue = cosine_kmeans(maps, cfg.n_clusters or DEFAULT_LABELS, cfg.seed)
        eigenvectors = maps.cpu().numpy()
    cue = numbered_by_size(cue)
    kmeans = cosine_kmeans(keys[0], cfg.n_clusters or int(cue.max()) + 1, cfg.seed)
    return Decomposition(eigenvectors, cue, numbered_like(kmeans, cue))


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


def _maps(vectors: Tensor, grid: tuple[int, int]) -> Tensor:
    """1×(h·w)×k eigenvectors → (k-1)×h×w, without the trivial one."""
    return vectors[0, :, 1:].T.unflatten(1, grid)


def whole_patch_input(photograph: Image.Image, res: int, patch_size: int) -> Tensor:
    """The model's input: short side ``res``, long side the nearest multiple of the patch size, nearest neighbour.

    The aspect changes by at most half a patch.

    Returns:
        1×3×H×W normalised.

    Raises:
        DataError: the photograph is so long that it has more than MAX_PATCHES patches.
    """
    short = min(photograph.size)
    columns, rows = (round(side * res / short / patch_size) for side in photograph.size)
    if columns * rows > MAX_PATCHES:
        raise DataError(f"{columns}×{rows} patches are more than {MAX_PATCHES}; lower res or crop the image")
    seen = photograph.resize((columns * patch_size, rows * patch_size), Image.Resampling.NEAREST)
    return normalize(image_tensor(seen))[None]
