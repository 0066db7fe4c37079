"""Confusion matrix, Hungarian matching, mIoU and accuracy under both protocols for extra clusters (method §9)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class Scores:
    """Result of a confusion matrix.

    Attributes:
        miou: mean over classes of tp / (tp + fp + fn) in percent; classes that occur neither in labels nor in
            predictions are left out; NaN where nothing was labelled.
        accuracy: correct pixels in percent of those counted; NaN where nothing was labelled.
        iou: the same for each class, NaN where it is left out.
        class_accuracy: correct pixels in percent of each class's labelled ones.
        confusion: n×n pixel counts, row = class that the pixel's cluster was matched to, column = label.
    """

    miou: float
    accuracy: float
    iou: np.ndarray
    class_accuracy: np.ndarray
    confusion: np.ndarray


def match_clusters(confusion: np.ndarray) -> np.ndarray:
    """Hungarian matching that maximises correct pixels.

    Args:
        confusion: (n + extra)×n counts, row = cluster, column = label. Extra clusters take no part.

    Returns:
        n + extra class numbers, one for each cluster; −1 for extra clusters.
    """
    n_classes = confusion.shape[1]
    clusters, classes = linear_sum_assignment(confusion[:n_classes], maximize=True)
    class_of_cluster = np.full(len(confusion), -1)
    class_of_cluster[clusters] = classes
    return class_of_cluster


def score(confusion: np.ndarray, class_of_cluster: np.ndarray, count_extra: bool) -> Scores:
    """Scores of a matched confusion matrix.

    Args:
        confusion: (n + extra)×n counts, row = cluster, column = label.
        class_of_cluster: each cluster's class, −1 for none.
        count_extra: False is the published protocol, which leaves pixels of unmatched clusters out; True is the
            strict one, where they are errors.
    """
    n_classes = confusion.shape[1]
    matched = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(matched, class_of_cluster[class_of_cluster >= 0], confusion[class_of_cluster >= 0])
    counted = confusion if count_extra else confusion[class_of_cluster >= 0]
    correct, labelled, predicted = np.diag(matched), counted.sum(axis=0), matched.sum(axis=1)
    iou = _percent(correct, predicted + labelled - correct)
    return Scores(
        miou=float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan"),
        accuracy=float(_percent(correct.sum(), counted.sum())),
        iou=iou,
        class_accuracy=_percent(correct, labelled),
        confusion=matched,
    )


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * np.true_divide(part, whole)


class UnsupervisedMetrics(Metric):
    """Accumulates exact pixel counts and matches clusters to classes.

    Args:
        prefix: put before the names of the results, e.g. ``test/cluster/``.
        n_classes: classes; labels outside [0, n_classes) are void.
        extra_clusters: clusters beyond the classes.
        compute_hungarian: match clusters to classes; without it cluster i is class i.
        count_extra: protocol of ``compute``, see ``score``.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(
        self, prefix: str, n_classes: int, extra_clusters: int, compute_hungarian: bool, count_extra: bool = False
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.n_classes = n_classes
        self.extra_clusters = extra_clusters
        self.compute_hungarian = compute_hungarian
        self.count_extra = count_extra
        empty = torch.zeros(n_classes + extra_clusters, n_classes, dtype=torch.int64)
        self.add_state("confusion", default=empty, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predicted clusters and labels of the same shape, integers; void labels are passed over."""
        n_clusters = self.n_classes + self.extra_clusters
        preds, target = preds.flatten().long(), target.flatten().long()
        valid = (target >= 0) & (target < self.n_classes) & (preds >= 0) & (preds < n_clusters)
        cells = preds[valid] * self.n_classes + target[valid]
        counts = torch.bincount(cells, minlength=n_clusters * self.n_classes)
        self.confusion += counts.view(n_clusters, self.n_classes)

    def compute(self) -> dict[str, float]:
        """``prefix + "mIoU"`` and ``prefix + "Accuracy"`` in percent."""
        scores = self.scores(self.count_extra)
        return {f"{self.prefix}mIoU": scores.miou, f"{self.prefix}Accuracy": scores.accuracy}

    def class_of_cluster(self) -> np.ndarray:
        """Each cluster's class under the matching, −1 for none."""
        if self.compute_hungarian:
            return match_clusters(self.confusion.cpu().numpy())
        return np.where(np.arange(len(self.confusion)) < self.n_classes, np.arange(len(self.confusion)), -1)

    def scores(self, count_extra: bool) -> Scores:
        """All scores under one protocol."""
        return score(self.confusion.cpu().numpy(), self.class_of_cluster(), count_extra)

    def has_labels(self) -> bool:
        """Whether any labelled pixel was counted."""
        return bool(self.confusion.sum() > 0)
