"""Class log-probabilities of images, averaged over the image and its mirror image (method §9)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.config.refinement import SPECTRAL_SUFFIX
from eagle.inference.windows import Features, padded_to_patches, windowed
from eagle.models.backbone import KeyBackbone
from eagle.models.probes import ClusterLookup, upsampled
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.refinement import spectral_refinement

# Smallest probability of a refined map before its logarithm.
LEAST_PROBABILITY = 1e-6


class SegmenterProbes(nn.Module):
    """The "linear" and "cluster" maps of a trained segmenter's probes.

    Args:
        segmenter: in eval mode.
        alpha: sharpness of the cluster probe.
        window: side in pixels of the windows that larger images are split into; None processes every image whole.
        spectral: add the spectrally refined maps "linear+spectral" and "cluster+spectral".
        flip: average the codes of an image and of its mirror image, as released.
    """

    def __init__(
        self,
        segmenter: LitUnsupervisedSegmenter,
        alpha: float,
        window: int | None = None,
        spectral: bool = False,
        flip: bool = True,
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.alpha = alpha
        self.window = window
        self.spectral = spectral
        self.flip = flip
        n_clusters = {"linear": segmenter.n_classes, "cluster": len(segmenter.cluster_probe.clusters)}
        self.n_clusters = _with_spectral(n_clusters) if spectral else n_clusters

    @torch.no_grad()
    def code(self, img: Tensor) -> Tensor:
        """Code S of an image of any size, B×dim×⌈H/patch⌉×⌈W/patch⌉; with ``flip`` averaged with its mirror image's."""
        net = self.segmenter.net

        def codes(view: Tensor) -> Tensor:
            return net.keys_and_code(view)[1]

        return any_size_features(codes, img, net.model.patch_size, self.window, self.flip)

    def patch_logits(self, name: str, code: Tensor) -> Tensor:
        """Logits of the patches, B×C×h×w, by the probe "linear" or "cluster"."""
        if name == "linear":
            return self.segmenter.linear_logits(code)
        return self.alpha * self.segmenter.cluster_probe.similarity(code)

    @torch.no_grad()
    def forward(self, img: Tensor) -> dict[str, Tensor]:
        """See ProbeMaps."""
        code = self.code(img)
        size, shown = covered_size(code, self.segmenter.net.model.patch_size), (img.shape[2], img.shape[3])
        logits = self.patch_logits("linear", code)
        linear = upsampled(logits, size)
        cluster = self.alpha * self.segmenter.cluster_probe.upsampled_similarity(code, size)
        maps = {
            "linear": F.log_softmax(cropped_to(linear, shown), dim=1),
            "cluster": F.log_softmax(cropped_to(cluster, shown), dim=1),
        }
        if self.spectral:
            for name, scores in {"linear": logits, "cluster": self.patch_logits("cluster", code)}.items():
                refined = spectral_refinement(scores.softmax(dim=1), code)
                maps[name + SPECTRAL_SUFFIX] = log_probabilities(cropped_to(upsampled(refined, size), shown))
        return maps


class KMeansProbe(nn.Module):
    """The "kmeans" map: k-means centres on a frozen backbone's keys, used like the cluster probe.

    Args:
        backbone: computes K.
        centres: a probe with the k-means centres as clusters.
        alpha: sharpness of the probe.
        window: as in SegmenterProbes.
        spectral: add the spectrally refined map "kmeans+spectral".
        flip: as in SegmenterProbes.
    """

    def __init__(
        self,
        backbone: KeyBackbone,
        centres: ClusterLookup,
        alpha: float,
        window: int | None = None,
        spectral: bool = False,
        flip: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.centres = centres
        self.alpha = alpha
        self.window = window
        self.spectral = spectral
        self.flip = flip
        n_clusters = {"kmeans": len(centres.clusters)}
        self.n_clusters = _with_spectral(n_clusters) if spectral else n_clusters

    @torch.no_grad()
    def forward(self, img: Tensor) -> dict[str, Tensor]:
        """See ProbeMaps."""
        keys = any_size_features(self.backbone, img, self.backbone.patch_size, self.window, self.flip)
        size, shown = covered_size(keys, self.backbone.patch_size), (img.shape[2], img.shape[3])
        similarity = self.centres.upsampled_similarity(keys, size)
        maps = {"kmeans": F.log_softmax(self.alpha * cropped_to(similarity, shown), dim=1)}
        if self.spectral:
            refined = spectral_refinement((self.alpha * self.centres.similarity(keys)).softmax(dim=1), keys)
            maps["kmeans" + SPECTRAL_SUFFIX] = log_probabilities(cropped_to(upsampled(refined, size), shown))
        return maps


def log_probabilities(probs: Tensor) -> Tensor:
    """Logarithm of probabilities, which may be zero."""
    return probs.clamp(min=LEAST_PROBABILITY).log()


def _with_spectral(n_clusters: dict[str, int]) -> dict[str, int]:
    return n_clusters | {name + SPECTRAL_SUFFIX: n for name, n in n_clusters.items()}


def any_size_features(
    features: Features, img: Tensor, patch_size: int, window: int | None, flip: bool = True
) -> Tensor:
    """Features of an image of any size, padded to whole patches.

    Args:
        features: B×3×H×W → B×C×h×w, for H and W multiples of the patch size.
        img: B×3×H×W.
        patch_size: side of a patch in pixels.
        window: as in SegmenterProbes.
        flip: average them with the mirror image's features.

    Returns:
        B×C×⌈H/patch_size⌉×⌈W/patch_size⌉.
    """

    def padded_features(view: Tensor) -> Tensor:
        return features(view) if window is None else windowed(features, view, window, patch_size)

    padded = padded_to_patches(img, patch_size)
    return flip_averaged(padded_features, padded) if flip else padded_features(padded)


def flip_averaged(features: Features, img: Tensor) -> Tensor:
    """Mean of an image's feature map and its mirror image's feature map, mirrored back; B×C×h×w."""
    return (features(img) + features(img.flip(dims=[3])).flip(dims=[3])) / 2


def covered_size(feature_map: Tensor, patch_size: int) -> tuple[int, int]:
    """(height, width) in pixels covered by the patches of a feature map."""
    return feature_map.shape[2] * patch_size, feature_map.shape[3] * patch_size


def cropped_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop B×C×H×W to its upper left ``size``, which removes the padding."""
    return x[:, :, : size[0], : size[1]]
