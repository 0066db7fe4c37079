"""Laplacian eigenvectors and EiCue of one image, with k-means of the keys for comparison."""

import warnings
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Decomposition:
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
def photograph_eigenvectors(code: Tensor, img: Tensor, n: int, cfg: Any, color_affinity: str) -> Tensor:
    """Eigenvectors of one image's Laplacian, computed as in training.

    Args:
        code: 1×D×h×w.
        img: 1×3×H×W, normalised.
        n: number of eigenvectors that are needed, not counting the trivial one.
        cfg: the run's configuration.
        color_affinity: see eagle.spectral.affinity.

    Returns:
        1×(h·w)×k by ascending eigenvalue, the trivial one first. k is at least n + 1, and at least as large as in
        training, so that the vectors do not depend on n.
    """
    k = max(1 + n, cfg.eigen_cluster)
    return laplacian_eigenvectors(code, img, k, color_affinity, cfg.eigensolver, cfg.eigen_signs, cfg.eicue_affinity)


@torch.no_grad()
def decompose(segmenter: LitUnsupervisedSegmenter, img: Tensor, cfg: Any) -> Decomposition:
    """Decompose an image as in training: Laplacian of code and colour affinity, EiCue from the trained codebook.

    Args:
        segmenter: in eval mode.
        img: 1×3×H×W, normalised, with sides that are multiples of the patch size; on the segmenter's device.
        cfg: has n_eigenvectors, n_clusters, color_affinity and seed, see VisualizeConfig.
    """
    run, grid = segmenter.cfg, _grid(img, segmenter.net.model)
    n = cfg.n_eigenvectors or run.eigen_cluster - 1
    keys, code = segmenter.net.keys_and_code(img)
    vectors = photograph_eigenvectors(code, img, n, run, cfg.color_affinity or run.color_affinity)
    _, cue = eicue(vectors[:, :, : run.eigen_cluster], grid, segmenter.train_cluster_probe_eigen)
    return _decomposition(_maps(vectors, grid)[:n], cue[0].cpu().numpy(), keys, cfg)


@torch.no_grad()
def decompose_keys(backbone: KeyBackbone, img: Tensor, cfg: Any) -> Decomposition:
    """Decompose an image without a trained head: Laplacian of key and colour affinity, EiCue by k-means.

    Normalised keys replace the codes. Cosine k-means of the eigenvectors replaces the codebook, which compares by
    cosine too. Arguments as in ``decompose``.
    """
    keys = backbone(img)
    n = cfg.n_eigenvectors or DEFAULT_EIGENVECTORS
    normalized = F.normalize(keys.float(), dim=1)
    vectors = laplacian_eigenvectors(normalized, img, 1 + n, cfg.color_affinity or "released")
    maps = _maps(vectors, _grid(img, backbone))
    return _decomposition(maps, cosine_kmeans(maps, cfg.n_clusters or DEFAULT_LABELS, cfg.seed), keys, cfg)


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


def _grid(img: Tensor, backbone: KeyBackbone) -> tuple[int, int]:
    return img.shape[2] // backbone.patch_size, img.shape[3] // backbone.patch_size


def _maps(vectors: Tensor, grid: tuple[int, int]) -> Tensor:
    """1×(h·w)×k eigenvectors → (k-1)×h×w, without the trivial one."""
    return vectors[0, :, 1:].T.unflatten(1, grid)


def _decomposition(maps: Tensor, cue: np.ndarray, keys: Tensor, cfg: Any) -> Decomposition:
    cue = numbered_by_size(cue)
    kmeans = cosine_kmeans(keys[0], cfg.n_clusters or int(cue.max()) + 1, cfg.seed)
    return Decomposition(maps.cpu().numpy(), cue, numbered_like(kmeans, cue))


# The affinity and the Laplacian of this many patches take 1.2 GB; a full eigendecomposition (rarely needed) takes more.
MAX_PATCHES = 10_000


def whole_patch_size(photograph: Image.Image, res: int, patch_size: int) -> tuple[int, int]:
    """(width, height) with the short side ``res`` and the long side the nearest multiple of the patch size.

    The aspect changes by at most half a patch.

    Raises:
        DataError: the photograph is so long that it has more than MAX_PATCHES patches.
    """
    short = min(photograph.size)
    columns, rows = (round(side * res / short / patch_size) for side in photograph.size)
    if columns * rows > MAX_PATCHES:
        raise DataError(f"{columns}×{rows} patches are more than {MAX_PATCHES}; lower res or crop the image")
    return columns * patch_size, rows * patch_size


def input_of_size(photograph: Image.Image, size: tuple[int, int]) -> Tensor:
    """Resize an RGB photograph to (width, height), nearest neighbour as in training; 1×3×height×width normalised."""
    return normalize(image_tensor(photograph.resize(size, Image.Resampling.NEAREST)))[None]
