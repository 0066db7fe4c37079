"""The report's tables as plain rows: classes, confusion matrices, clusters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eagle.data.class_map import NO_CLASS
from eagle.data.datasets.base import Classes
from eagle.data.palette import VOID_COLOR
from eagle.evaluation.metrics import UnsupervisedMetrics

NO_CLASS_NAME = "no class"
# The same colour in pictures, which have it in label maps too.
VOID_NAME = "void, no class"
# A cluster's labels and the confusions that are listed: the largest, if they are not small.
MOST_LABELS = 3
LEAST_LABEL_SHARE = 5.0
MOST_CONFUSIONS = 10
LEAST_CONFUSION_SHARE = 5.0


@dataclass(frozen=True)
class Named:
    """A class as legends show it: name and CSS colour."""

    name: str
    color: str


@dataclass(frozen=True)
class ClassRow:
    """A class's scores under one protocol, percentages; None where the class is absent.

    Attributes:
        named: the class.
        share: of the labelled pixels.
        iou: one for each map.
        accuracy: of the most refined map.
    """

    named: Named
    share: float
    iou: list[float | None]
    accuracy: float | None


@dataclass(frozen=True)
class Confusion:
    """What a map makes of each label.

    Attributes:
        predicted: the columns; the last one is "no class" where the map has clusters without a class.
        labels: the rows.
        shares: a row for each label: percent of its pixels; None where the label does not occur.
        largest: the most frequent mistakes: label, prediction, percent of the label's pixels.
    """

    predicted: list[Named]
    labels: list[Named]
    shares: list[list[float] | None]
    largest: list[tuple[Named, Named, float]]


@dataclass(frozen=True)
class ClusterRow:
    """A cluster and what the labels say it holds; percentages of labelled pixels.

    Attributes:
        number: the cluster's.
        named: its class, or "no class".
        share: of all pixels.
        purity: its pixels whose label is its class; None without pixels or class.
        labels: the most frequent labels of its pixels.
    """

    number: int
    named: Named
    share: float
    purity: float | None
    labels: list[tuple[Named, float]]


def legend(classes: Classes, without: str = NO_CLASS_NAME) -> list[Named]:
    """Every class, in the order of ids, and what pixels ``without`` one are drawn in (the last entry, id −1)."""
    colors = [*classes.palette.tolist(), VOID_COLOR]
    return [Named(name, css_color(color)) for name, color in zip((*classes.names, without), colors, strict=True)]


def css_color(rgb: Sequence[int]) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{value:02x}" for value in rgb)


def class_rows(
    scores: Mapping[str, Any], protocol: str, metric: UnsupervisedMetrics, classes: Classes
) -> list[ClassRow]:
    """The JSON's scores of every class.

    Args:
        scores: of the JSON, by map name.
        protocol: of the JSON.
        metric: of any map; its labels are all maps' labels.
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
    """How each label's pixels are spread over the predicted classes, pixels of clusters without a class included."""
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
    """Every cluster of a map in the order of its numbers."""
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
    """Each count's share of their sum; zeros where that is zero."""
    return 100 * counts / max(counts.sum(), 1)


def _counts(metric: UnsupervisedMetrics) -> np.ndarray:
    return metric.confusion.cpu().numpy()


def _purity(row: np.ndarray, class_id: int) -> float | None:
    return None if class_id == NO_CLASS or not row.any() else float(percent(row)[class_id])


def _largest_labels(row: np.ndarray, named: list[Named]) -> list[tuple[Named, float]]:
    shares = percent(row)
    largest = np.argsort(-shares, kind="stable")[:MOST_LABELS].tolist()
    return [(named[label], float(shares[label])) for label in largest if shares[label] >= LEAST_LABEL_SHARE]
