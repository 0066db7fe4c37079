"""Class log-probabilities of images, averaged over the image and its mirror image (method §9)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.inference.windows import Features, padded_to_patches, windowed
from eagle.models.backbone import KeyBackbone
from eagle.models.probes import ClusterLookup, upsampled
from eagle.segmenter import LitUnsupervisedSegmenter


class SegmenterProbes(nn.Module):
    """The "linear" and "cluster" maps of a trained segmenter's probes.

    Args:
        segmenter: in eval mode.
        alpha: sharpness of the cluster probe.
        window: side in pixels of the windows that larger images are split into; None processes every image whole.
    """

    def __init__(self, segmenter: LitUnsupervisedSegmenter, alpha: float, window: int | None = None) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.alpha = alpha
        self.window = window
        self.n_clusters = {"linear": segmenter.n_classes, "cluster": len(segmenter.cluster_probe.clusters)}

    @torch.no_grad()
    def code(self, img: Tensor) -> Tensor:
        """Code S of an image of any size, averaged with the mirror image's code; B×dim×⌈H/patch⌉×⌈W/patch⌉."""
        net = self.segmenter.net
        return any_size_features(lambda view: net.keys_and_code(view)[1], img, net.model.patch_size, self.window)

    @torch.no_grad()
    def forward(self, img: Tensor) -> dict[str, Tensor]:
        """See ProbeMaps."""
        code = self.code(img)
        size, shown = covered_size(code, self.segmenter.net.model.patch_size), (img.shape[2], img.shape[3])
        linear = upsampled(self.segmenter.linear_logits(code), size)
        cluster = self.alpha * self.segmenter.cluster_probe.upsampled_similarity(code, size)
        return {
            "linear": F.log_softmax(cropped_to(linear, shown), dim=1),
            "cluster": F.log_softmax(cropped_to(cluster, shown), dim=1),
        }


class KMeansProbe(nn.Module):
    """The "kmeans" map: k-means centres on a frozen backbone's keys, used like the cluster probe.

    Args:
        backbone: computes K.
        centres: a probe with the k-means centres as clusters.
        alpha: sharpness of the probe.
        window: as in SegmenterProbes.
    """

    def __init__(self, backbone: KeyBackbone, centres: ClusterLookup, alpha: float, window: int | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.centres = centres
        self.alpha = alpha
        self.window = window
        self.n_clusters = {"kmeans": len(centres.clusters)}

    @torch.no_grad()
    def forward(self, img: Tensor) -> dict[str, Tensor]:
        """See ProbeMaps."""
        keys = any_size_features(self.backbone, img, self.backbone.patch_size, self.window)
        similarity = self.centres.upsampled_similarity(keys, covered_size(keys, self.backbone.patch_size))
        return {"kmeans": F.log_softmax(self.alpha * cropped_to(similarity, (img.shape[2], img.shape[3])), dim=1)}


def any_size_features(features: Features, img: Tensor, patch_size: int, window: int | None) -> Tensor:
    """Features of an image of any size, padded to whole patches and averaged with the mirror image's features.

    Args:
        features: B×3×H×W → B×C×h×w, for H and W multiples of the patch size.
        img: B×3×H×W.
        patch_size: side of a patch in pixels.
        window: as in SegmenterProbes.

    Returns:
        B×C×⌈H/patch_size⌉×⌈W/patch_size⌉.
    """

    def padded_features(view: Tensor) -> Tensor:
        return features(view) if window is None else windowed(features, view, window, patch_size)

    return flip_averaged(padded_features, padded_to_patches(img, patch_size))


def flip_averaged(features: Features, img: Tensor) -> Tensor:
    """Mean of an image's feature map and its mirror image's feature map, mirrored back; B×C×h×w."""
    return (features(img) + features(img.flip(dims=[3])).flip(dims=[3])) / 2


def covered_size(feature_map: Tensor, patch_size: int) -> tuple[int, int]:
    """(height, width) in pixels covered by the patches of a feature map."""
    return feature_map.shape[2] * patch_size, feature_map.shape[3] * patch_size


def cropped_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop B×C×H×W to its upper left ``size``, which removes the padding."""
    return x[:, :, : size[0], : size[1]]
