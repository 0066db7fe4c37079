"""The spectral part of the method on one image: eigenvectors, EiCue, and k-means of the keys to compare with."""

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
    """What the spectral part makes of one image, on its grid of patches.

    Attributes:
        eigenvectors: n×h×w float32, signs fixed; the trivial one is left out.
        cue: h×w, EiCue's labels from 0 on, the largest first.
        kmeans: h×w, clusters of the keys, with the numbers of the cue's labels that they overlap most.
    """

    eigenvectors: np.ndarray
    cue: np.ndarray
    kmeans: np.ndarray


@dataclass(frozen=True)
class Settings:
    """What both ways of decomposing an image can be asked for.

    Attributes:
        n_eigenvectors: how many, the trivial one not counted.
        n_clusters: of k-means, and of a cue without a codebook; None for as many as the cue has labels.
        color_affinity: see eagle.spectral.affinity.
        seed: of k-means.
    """

    n_eigenvectors: int
    n_clusters: int | None
    color_affinity: str
    seed: int


class Decomposer(Protocol):
    """Anything that decomposes a normalised image, 1×3×H×W in whole patches, on the image's device.

    Attributes:
        patch_size: pixels a patch.
        note: what the Laplacian and the cue are made of, in a sentence for figures.
    """

    patch_size: int
    note: str

    def __call__(self, img: Tensor) -> Decomposition:
        """The decomposition of an image."""


class SegmenterDecomposer:
    """As in training: Laplacian of code and colour affinity, cue from the trained codebook.

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
        vectors = laplacian_eigenvectors(code, img, n, self._settings.color_affinity, cfg.eigensolver, cfg.eigen_signs)
        _, cue = eicue(vectors[:, :, : cfg.eigen_cluster], (code.shape[2], code.shape[3]), codebook)
        return _decomposition(_maps(vectors, keys)[:shown], cue[0].cpu().numpy(), keys, self._settings)


class BackboneDecomposer:
    """Without a trained head: Laplacian of the affinities of normalised keys and of colours, cue by k-means.

    The keys stand in for codes. There is no codebook either: the eigenvectors are clustered by direction, as a codebook
    would.

    Args:
        backbone: gives K.
        settings: see Settings; the cue has 8 clusters where it does not say.
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
    """Eigenvectors of the one image, 1×N×k → (k-1)×h×w without the trivial one."""
    return vectors[0, :, 1:].T.unflatten(1, keys.shape[2:])


def _decomposition(maps: Tensor, cue: np.ndarray, keys: Tensor, settings: Settings) -> Decomposition:
    cue = numbered_by_size(cue)
    kmeans = cosine_kmeans(keys[0], settings.n_clusters or int(cue.max()) + 1, settings.seed)
    return Decomposition(maps.cpu().numpy(), cue, numbered_like(kmeans, cue))
