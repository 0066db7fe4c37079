"""Confusion matrix, Hungarian matching, mIoU and accuracy under both protocols (docs/method.md §9)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class Scores:
    """Scores of a matched confusion matrix, in percent.

    Attributes:
        miou: mean of ``iou`` over classes that occur in labels or predictions; NaN without labelled pixels.
        accuracy: correct pixels / counted pixels; NaN without labelled pixels.
        iou: tp / (tp + fp + fn) of each class; NaN if it occurs neither in labels nor in predictions.
        class_accuracy: correct pixels / labelled pixels of each class.
        confusion: n×n pixel counts, row = predicted class after matching, column = label.
    """

    miou: float
    accuracy: float
    iou: np.ndarray
    class_accuracy: np.ndarray
    confusion: np.ndarray


def match_clusters(confusion: np.ndarray) -> np.ndarray:
    """Hungarian matching of the first n clusters that maximises correct pixels.

    Args:
        confusion: (n + extra)×n counts, row = cluster, column = label; extra clusters stay unmatched.

    Returns:
        Class of each of the n + extra clusters; −1 for extra clusters.
    """
    n_classes = confusion.shape[1]
    return np.append(match_cut(confusion[:n_classes]), np.full(len(confusion) - n_classes, -1))


def match_cut(confusion: np.ndarray) -> np.ndarray:
    """Hungarian matching of any number of clusters that maximises correct pixels: −1 where classes run out.

    Transposed as in the released code, because the order decides between equal matchings.
    """
    classes, clusters = linear_sum_assignment(confusion.T, maximize=True)
    class_of_cluster = np.full(len(confusion), -1)
    class_of_cluster[clusters] = classes
    return class_of_cluster


def name_by_majority(confusion: np.ndarray) -> np.ndarray:
    """The class that most labelled pixels of each cluster have; −1 for a cluster without any. Classes can recur."""
    return np.where(confusion.any(axis=1), confusion.argmax(axis=1), -1)


def score(confusion: np.ndarray, class_of_cluster: np.ndarray) -> Scores:
    """Scores of a matched confusion matrix; pixels of unmatched clusters are errors.

    Args:
        confusion: (n + extra)×n counts, row = cluster, column = label.
        class_of_cluster: class of each cluster, −1 for none.
    """
    n_classes = confusion.shape[1]
    matched = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(matched, class_of_cluster[class_of_cluster >= 0], confusion[class_of_cluster >= 0])
    correct, labelled, predicted = np.diag(matched), confusion.sum(axis=0), matched.sum(axis=1)
    iou = _percent(correct, predicted + labelled - correct)
    return Scores(
        miou=float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan"),
        accuracy=float(_percent(correct.sum(), labelled.sum())),
        iou=iou,
        class_accuracy=_percent(correct, labelled),
        confusion=matched,
    )


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * np.true_divide(part, whole)


class UnsupervisedMetrics(Metric):
    """Confusion matrix with exact counts, scored after matching clusters to classes.

    Args:
        prefix: prefix of the result names, e.g. ``test/cluster/``.
        n_classes: number of classes; labels outside [0, n_classes) are void.
        extra_clusters: number of clusters beyond n_classes.
        compute_hungarian: match clusters to classes by Hungarian matching; otherwise cluster i is class i.
        any_cluster: match any of the clusters, not the first n_classes only; ``extra_clusters`` may then be negative.
        count_extra: protocol of ``compute``: True is the strict one, in which pixels of extra clusters are errors. The
            published one, False, ignores them.

    Example:
        >>> import torch
        >>> from eagle import UnsupervisedMetrics
        >>> metric = UnsupervisedMetrics("test/", n_classes=2, extra_clusters=0, compute_hungarian=True)
        >>> metric.update(torch.tensor([1, 1, 0, 0]), torch.tensor([0, 0, 1, -1]))  # -1 is void
        >>> metric.compute()
        {'test/mIoU': 100.0, 'test/Accuracy': 100.0}
    """

    full_state_update = False
    confusion: Tensor

    def __init__(
        self,
        prefix: str,
        n_classes: int,
        extra_clusters: int,
        compute_hungarian: bool,
        count_extra: bool = False,
        any_cluster: bool = False,
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.n_classes = n_classes
        self.extra_clusters = extra_clusters
        self.compute_hungarian = compute_hungarian
        self.count_extra = count_extra
        self.any_cluster = any_cluster
        empty = torch.zeros(n_classes + extra_clusters, n_classes, dtype=torch.int64)
        self.add_state("confusion", default=empty, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predicted clusters and labels, integer tensors of the same shape; void labels are ignored."""
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
        """Class of each cluster, −1 for none."""
        if self.compute_hungarian:
            return (match_cut if self.any_cluster else match_clusters)(self.confusion.cpu().numpy())
        return np.where(np.arange(len(self.confusion)) < self.n_classes, np.arange(len(self.confusion)), -1)

    def scores(self, count_extra: bool) -> Scores:
        """All scores under one protocol, see ``count_extra`` of the class."""
        n = len(self.confusion) if count_extra or self.any_cluster else self.n_classes
        return score(self.confusion.cpu().numpy()[:n], self.class_of_cluster()[:n])

    def named_scores(self) -> Scores:
        """Many-to-one scores: each cluster has the class that most of its pixels have, see ``name_by_majority``."""
        confusion = self.confusion.cpu().numpy()
        return score(confusion, name_by_majority(confusion))

    def has_labels(self) -> bool:
        """Whether any labelled pixel was counted."""
        return bool(self.confusion.sum() > 0)
