"""Figures of a validation during training, and tables of the numbers that they show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS_NAME, numbered_clusters
from eagle.evaluation.frequencies import HEADER, class_frequencies, cluster_frequencies
from eagle.evaluation.metrics import match_clusters, score
from eagle.evaluation.picture import Picture
from eagle.figures.confusion import confusion_figure
from eagle.figures.frequencies import frequencies_figure
from eagle.figures.segmentation_grid import segmentation_grid


@dataclass(frozen=True)
class ValidationFigures:
    """Figures by name, and tables by name as rows of cells, the header first."""

    figures: dict[str, Figure]
    tables: dict[str, list[list[str]]]


def labelled_validation(
    when: str, pictures: Sequence[Picture], confusion: np.ndarray, classes: Classes
) -> ValidationFigures:
    """Draw ``grid``, ``confusion`` and ``frequencies``; clusters are shown as their matched classes.

    Args:
        when: start of the titles.
        pictures: rows of the grid, with the maps "linear" and "cluster".
        confusion: (n + extra)×n counts of the cluster probe, row = cluster, column = label.
        classes: names and palette.
    """
    class_of_cluster = match_clusters(confusion)
    scores = score(confusion, class_of_cluster, count_extra=False)
    unmatched = confusion.sum(axis=0) - scores.confusion.sum(axis=0) if len(confusion) > len(classes) else None
    frequencies = class_frequencies(confusion, class_of_cluster, classes)
    columns = {"linear": np.arange(len(classes)), "cluster": class_of_cluster}
    title = f"{when}: cluster mIoU {scores.miou:.1f} %, accuracy {scores.accuracy:.1f} %"
    protocol = "" if unmatched is None else f"\nboth without the pixels of {NO_CLASS_NAME}"
    return ValidationFigures(
        {
            "grid": segmentation_grid(pictures, columns, classes, title=title),
            "confusion": confusion_figure(scores.confusion, classes, title + protocol, unmatched),
            "frequencies": frequencies_figure(frequencies, f"{when}: pixels of each class"),
        },
        {
            "confusion": confusion_table(scores.confusion, classes, unmatched),
            "frequencies": [[*HEADER], *frequencies.table()],
        },
    )


def label_free_validation(when: str, pictures: Sequence[Picture], counts: np.ndarray) -> ValidationFigures:
    """Draw ``grid`` and ``frequencies`` of the clusters, each cluster in its own colour.

    Args:
        when: start of the titles.
        pictures: rows of the grid, with the map "cluster".
        counts: number of pixels of each cluster.
    """
    frequencies, clusters = cluster_frequencies(counts), numbered_clusters(len(counts))
    columns = {"cluster": np.arange(len(counts))}
    return ValidationFigures(
        {
            "grid": segmentation_grid(pictures, columns, clusters, labelled=False, title=when),
            "frequencies": frequencies_figure(frequencies, f"{when}: pixels of each cluster"),
        },
        {"frequencies": [[*HEADER], *frequencies.table()]},
    )


def confusion_table(confusion: np.ndarray, classes: Classes, unmatched: np.ndarray | None) -> list[list[str]]:
    """The pixel counts behind ``confusion_figure``: one row per label, one column per predicted class."""
    header, by_label = ["label / predicted", *classes.names], confusion.T
    if unmatched is not None:
        header, by_label = [*header, NO_CLASS_NAME], np.column_stack([by_label, unmatched])
    return [header, *([name, *map(str, row)] for name, row in zip(classes.names, by_label.tolist(), strict=True))]
