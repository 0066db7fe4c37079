"""Object-centric contrastive loss ObjNCE with prototypes of the cue's labels (method §5; paper equations 8 to 10)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CITYSCAPES_SMOOTHING = 0.1


class ObjectNCELoss(nn.Module):
    """Pull every patch to the prototype of its object cue, in its own view and across the two.

    Args:
        cfg: has contrastive_temp, global_loss_weight, centroid_mode, and label_smoothing or dataset_name.
        n_classes: rows of the prototype table that ``centroid_mode: learned`` uses; labels count modulo it.
        dim: channels of that table.
    """

    def __init__(self, cfg: Any, n_classes: int, dim: int | None = None) -> None:
        super().__init__()
        self.temperature: float = cfg.contrastive_temp
        self.global_weight: float = cfg.global_loss_weight
        self.centroid_mode: str = cfg.centroid_mode
        self.n_classes = n_classes
        self.label_smoothing = _label_smoothing(cfg)
        self.learned_centroids: nn.Parameter | None = None
        if self.centroid_mode == "learned":
            self.learned_centroids = nn.Parameter(torch.randn(n_classes, cfg.dim if dim is None else dim))

    def forward(self, source: Tensor, target: Tensor, cue: Tensor, similarity: Tensor) -> Tensor:
        """½[(1-g)·local + g·global] for one direction.

        Args:
            source: Z, (B·N)×D unit vectors whose cue forms the prototypes.
            target: Z̃, the same patches in the other view.
            cue: B×h×w int64 labels of the source.
            similarity: the normalised key similarities of ``normalized_similarity``, B×N×N, or their row means, the
                patch weights, B×N.

        Returns:
            Scalar, float32.
        """
        with torch.autocast(source.device.type, enabled=False):
            source, target = source.float(), target.float()
            weights = (similarity.mean(dim=2) if similarity.ndim == 3 else similarity).flatten().float()
            labels, own_label = cue.flatten().unique(sorted=True, return_inverse=True)
            prototypes = self.prototypes(source, labels, own_label)
            local = self._contrast(source, prototypes, own_label, weights)
            cross_view = self._contrast(target, prototypes, own_label, weights)
            return ((1 - self.global_weight) * local + self.global_weight * cross_view) / 2

    def prototypes(self, source: Tensor, labels: Tensor, own_label: Tensor) -> Tensor:
        """One vector for each label present, K×D; gradient flows through it.

        Args:
            source: M×D patches.
            labels: K labels, ascending.
            own_label: M indices into ``labels``.
        """
        if self.learned_centroids is not None:
            return self.learned_centroids[labels % self.n_classes]
        members = [source[own_label == k] for k in range(len(labels))]
        if self.centroid_mode == "mean":
            return torch.stack([patches.mean(dim=0) for patches in members])
        return torch.stack([patches[medoid(patches)] for patches in members])

    def _contrast(self, patches: Tensor, prototypes: Tensor, own_label: Tensor, weights: Tensor) -> Tensor:
        logits = patches @ prototypes.T / self.temperature
        if self.label_smoothing == 0:
            return (F.cross_entropy(logits, own_label, reduction="none") * weights).mean()
        # As published for Cityscapes: the mean comes first, so the weights act as one global factor.
        return (_smoothed_cross_entropy(logits, own_label, self.label_smoothing) * weights).mean()


@torch.no_grad()
def medoid(patches: Tensor) -> Tensor:
    """Index of the row of M×D with the least sum of Euclidean distances to the others."""
    return torch.cdist(patches, patches).sum(dim=1).argmin()


@torch.no_grad()
def normalized_similarity(keys: Tensor) -> Tensor:
    """R = KᵀK of each image, L2-normalised along dim 1: B×C×h×w → B×N×N float32."""
    with torch.autocast(keys.device.type, enabled=False):
        tokens = keys.float().flatten(2)
        return F.normalize(torch.bmm(tokens.transpose(1, 2), tokens), dim=1)


def _smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean cross entropy to targets with ``smoothing`` spread over the other labels."""
    n_labels = logits.shape[1]
    off_target = smoothing / (n_labels - 1) if n_labels > 1 else 0.0
    targets = torch.full_like(logits, off_target).scatter_(1, labels[:, None], 1 - smoothing)
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def _label_smoothing(cfg: Any) -> float:
    smoothing = getattr(cfg, "label_smoothing", None)
    if smoothing is None:
        return CITYSCAPES_SMOOTHING if getattr(cfg, "dataset_name", None) == "cityscapes" else 0.0
    return float(smoothing)
