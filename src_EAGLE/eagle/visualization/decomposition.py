"""Laplacian eigenvectors and EiCue of one image, with k-means of the keys for comparison."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eagle.models.backbone import KeyBackbone
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.eicue import eicue, laplacian_eigenvectors
from eagle.visualization.label_maps import cosine_kmeans, numbered_by_size, numbered_like

CLUSTERS_WITHOUT_CODEBOOK = 8


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


@dataclass(frozen=True)
class Settings:
    """Settings of both decomposers.

    Attributes:
        n_eigenvectors: number of eigenvectors, not counting the trivial one.
        n_clusters: number of k-means clusters, also for EiCue without a codebook; None for as many as EiCue has labels.
        color_affinity: see eagle.spectral.affinity.
        seed: seed of k-means.
    """

    n_eigenvectors: int
    n_clusters: int | None
    color_affinity: str
    seed: int


class Decomposer(Protocol):
    """Callable that decomposes one normalised image.

    Attributes:
        patch_size: side of a patch in pixels.
        note: a sentence for figures that says how the Laplacian and EiCue are computed.
    """

    patch_size: int
    note: str

    def __call__(self, img: Tensor) -> Decomposition:
        """Decompose a 1×3×H×W image whose sides are multiples of ``patch_size``, on its device."""


class SegmenterDecomposer:
    """As in training: Laplacian of code and colour affinity, EiCue from the trained codebook.

    Args:
        segmenter: in eval mode.
        settings: see Settings.
    """

    def __init__(self, segmenter: LitUnsupervisedSegmenter, settings: Settings) -> None:
        self.patch_size = segmenter.net.model.patch_size
        self.note = "Laplacian of code and colour affinity, EiCue from the trained codebook."
        self._segmenter = segmenter
        self._settings = settings

    @torch.no_grad()
    def __call__(self, img: Tensor) -> Decomposition:
        """See Decomposer."""
        cfg, codebook = self._segmenter.cfg, self._segmenter.train_cluster_probe_eigen
        keys, code = self._segmenter.net.keys_and_code(img)
        shown = self._settings.n_eigenvectors
        n = max(1 + shown, cfg.eigen_cluster)
        vectors = laplacian_eigenvectors(
            code, img, n, self._settings.color_affinity, cfg.eigensolver, cfg.eigen_signs, cfg.eicue_affinity
        )
        _, cue = eicue(vectors[:, :, : cfg.eigen_cluster], (code.shape[2], code.shape[3]), codebook)
        return _decomposition(_maps(vectors, keys)[:shown], cue[0].cpu().numpy(), keys, self._settings)


class BackboneDecomposer:
    """Without a trained head: Laplacian of key and colour affinity, EiCue by k-means.

    Normalised keys replace the codes. Cosine k-means of the eigenvectors replaces the codebook, which compares by
    cosine too.

    Args:
        backbone: computes the keys K.
        settings: see Settings; without ``n_clusters`` EiCue has 8 clusters.
    """

    def __init__(self, backbone: KeyBackbone, settings: Settings) -> None:
        self.patch_size = backbone.patch_size
        self.note = (
            "No checkpoint: Laplacian of the affinity of normalised keys and of colours, EiCue by k-means of the "
            "eigenvectors."
        )
        self._backbone = backbone
        self._settings = settings

    @torch.no_grad()
    def __call__(self, img: Tensor) -> Decomposition:
        """See Decomposer."""
        settings = self._settings
        keys = self._backbone(img)
        normalized = F.normalize(keys.float(), dim=1)
        vectors = laplacian_eigenvectors(normalized, img, 1 + settings.n_eigenvectors, settings.color_affinity)
        maps = _maps(vectors, keys)
        cue = cosine_kmeans(maps, settings.n_clusters or CLUSTERS_WITHOUT_CODEBOOK, settings.seed)
        return _decomposition(maps, cue, keys, settings)


def _maps(vectors: Tensor, keys: Tensor) -> Tensor:
    """1×N×k eigenvectors → (k-1)×h×w, without the trivial one."""
    return vectors[0, :, 1:].T.unflatten(1, keys.shape[2:])


def _decomposition(maps: Tensor, cue: np.ndarray, keys: Tensor, settings: Settings) -> Decomposition:
    cue = numbered_by_size(cue)
    kmeans = cosine_kmeans(keys[0], settings.n_clusters or int(cue.max()) + 1, settings.seed)
    return Decomposition(maps.cpu().numpy(), cue, numbered_like(kmeans, cue))
