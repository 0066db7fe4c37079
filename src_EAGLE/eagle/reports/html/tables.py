"""Rows of the report's tables: classes, confusion matrices, clusters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS, NO_CLASS_NAME, VOID_COLOR
from eagle.evaluation.metrics import UnsupervisedMetrics

# In pictures, void labels and predictions without a class have the same colour.
VOID_NAME = "void, no class"
# How many labels of a cluster and how many confusions are listed, and the least percentage for each.
MOST_LABELS = 3
LEAST_LABEL_SHARE = 5.0
MOST_CONFUSIONS = 10
LEAST_CONFUSION_SHARE = 5.0


@dataclass(frozen=True)
class Named:
    """A class's name and CSS colour."""

    name: str
    color: str


@dataclass(frozen=True)
class ClassRow:
    """A class's scores under one protocol in percent; None where the class is absent.

    Attributes:
        named: the class.
        share: share of the labelled pixels.
        iou: IoU in each map.
        accuracy: accuracy in the most refined map.
    """

    named: Named
    share: float
    iou: list[float | None]
    accuracy: float | None


@dataclass(frozen=True)
class Confusion:
    """A map's confusion matrix in percent of each label's pixels.

    Attributes:
        predicted: the columns; the last one is "no class" if the map has clusters without a class.
        labels: the rows.
        shares: one row per label; None if the label does not occur.
        largest: the most frequent mistakes as (label, prediction, percent of the label's pixels).
    """

    predicted: list[Named]
    labels: list[Named]
    shares: list[list[float] | None]
    largest: list[tuple[Named, Named, float]]


@dataclass(frozen=True)
class ClusterRow:
    """A cluster and the labels of its pixels, in percent.

    Attributes:
        number: the cluster's number.
        named: its class, or "no class".
        share: share of all labelled pixels.
        purity: share of its labelled pixels whose label is its class; None without such pixels or without a class.
        labels: the most frequent labels of its pixels.
    """

    number: int
    named: Named
    share: float
    purity: float | None
    labels: list[tuple[Named, float]]


def legend(classes: Classes, without: str = NO_CLASS_NAME) -> list[Named]:
    """All classes in the order of their ids, then an entry named ``without`` for id −1."""
    colors = [f"#{bytes(color).hex()}" for color in (*classes.palette.tolist(), VOID_COLOR)]
    return [Named(name, color) for name, color in zip((*classes.names, without), colors, strict=True)]


def class_rows(
    scores: Mapping[str, Any], protocol: str, metric: UnsupervisedMetrics, classes: Classes
) -> list[ClassRow]:
    """Scores of every class under one protocol.

    Args:
        scores: the JSON's scores, by map name.
        protocol: a key of each map's scores.
        metric: the metric of any map, since all maps share the labels.
        classes: names and palette.
    """
    entries = [entry[protocol] for entry in scores.values()]
    accuracies = entries[-1]["class_accuracy"]
    shares = percent(_counts(metric).sum(axis=0))
    return [
        ClassRow(named, share, [entry["IoU"][named.name] for entry in entries], accuracies[named.name])
        for named, share in zip(legend(classes)[:-1], shares.tolist(), strict=True)
    ]


def confusion(metric: UnsupervisedMetrics, classes: Classes) -> Confusion:
    """Confusion matrix of a map, including pixels of clusters without a class."""
    counts, class_of_cluster, named = _counts(metric), metric.class_of_cluster(), legend(classes)
    by_label = np.zeros((len(classes), len(classes) + 1), dtype=np.int64)
    np.add.at(by_label.T, class_of_cluster, counts)  # NO_CLASS is the last column
    n_columns = len(classes) + int((class_of_cluster == NO_CLASS).any())
    shares = [percent(row[:n_columns]).tolist() if row.any() else None for row in by_label]
    mistakes = [
        (named[label], named[predicted], share)
        for label, row in enumerate(shares)
        for predicted, share in enumerate(row or [])
        if predicted != label and share >= LEAST_CONFUSION_SHARE
    ]
    mistakes.sort(key=lambda mistake: -mistake[2])
    return Confusion(named[:n_columns], named[:-1], shares, mistakes[:MOST_CONFUSIONS])


def cluster_rows(metric: UnsupervisedMetrics, classes: Classes) -> list[ClusterRow]:
    """One row for each cluster of a map, in the order of their numbers."""
    counts, class_of_cluster, named = _counts(metric), metric.class_of_cluster().tolist(), legend(classes)
    shares = percent(counts.sum(axis=1)).tolist()
    return [
        ClusterRow(
            number,
            named[class_of_cluster[number]],
            shares[number],
            _purity(row, class_of_cluster[number]),
            _largest_labels(row, named),
        )
        for number, row in enumerate(counts)
    ]


def percent(counts: np.ndarray) -> np.ndarray:
    """Counts in percent of their sum; zeros if the sum is zero."""
    return 100 * counts / max(counts.sum(), 1)


def _counts(metric: UnsupervisedMetrics) -> np.ndarray:
    return metric.confusion.cpu().numpy()


def _purity(row: np.ndarray, class_id: int) -> float | None:
    return None if class_id == NO_CLASS or not row.any() else float(percent(row)[class_id])


def _largest_labels(row: np.ndarray, named: list[Named]) -> list[tuple[Named, float]]:
    shares = percent(row)
    largest = np.argsort(-shares, kind="stable")[:MOST_LABELS].tolist()
    return [(named[label], float(shares[label])) for label in largest if shares[label] >= LEAST_LABEL_SHARE]
