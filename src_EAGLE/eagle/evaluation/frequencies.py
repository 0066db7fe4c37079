"""Pixel counts of each class in the labels and of its matched cluster in the predictions (STEGO's histograms)."""

from typing import NamedTuple

import numpy as np

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS, VOID_COLOR, numbered_clusters

HEADER = ["name", "cluster", "labelled_pixels", "labelled_percent", "predicted_pixels", "predicted_percent"]


class Frequencies(NamedTuple):
    """Pixel counts per class and its matched cluster, followed by the clusters without a class.

    Attributes:
        names: n names: classes, then clusters without a class.
        colors: n×3 uint8, as on label maps.
        clusters: n cluster ids.
        predicted: n counts of predicted pixels.
        labelled: labelled pixels of each class; empty without labels.
    """

    names: tuple[str, ...]
    colors: np.ndarray
    clusters: np.ndarray
    predicted: np.ndarray
    labelled: np.ndarray


def class_frequencies(confusion: np.ndarray, class_of_cluster: np.ndarray, classes: Classes) -> Frequencies:
    """Frequencies over labelled pixels: each class with its cluster, then the clusters without a class.

    Args:
        confusion: (n + extra)×n counts, row = cluster, column = label.
        class_of_cluster: class of each cluster, −1 for none; every class has one cluster.
        classes: names and palette.
    """
    unmatched = np.flatnonzero(class_of_cluster == NO_CLASS)
    by_class = np.argsort(class_of_cluster, kind="stable")[len(unmatched) :]
    clusters = np.concatenate([by_class, unmatched])
    return Frequencies(
        names=(*classes.names, *(f"cluster {cluster} (no class)" for cluster in unmatched.tolist())),
        colors=np.vstack([classes.palette, *[VOID_COLOR] * len(unmatched)]).astype(np.uint8),
        clusters=clusters,
        predicted=confusion.sum(axis=1)[clusters],
        labelled=confusion.sum(axis=0),
    )


def cluster_frequencies(counts: np.ndarray) -> Frequencies:
    """Frequencies of the clusters over all pixels of unlabelled images; ``counts`` are the pixels of each cluster."""
    clusters = numbered_clusters(len(counts))
    return Frequencies(clusters.names, clusters.palette, np.arange(len(counts)), counts, counts[:0])


def frequency_table(frequencies: Frequencies) -> list[list[str]]:
    """HEADER, then one row of cells per name; label cells are empty for clusters without a class."""
    labelled = [*_cells(frequencies.labelled)]
    labelled += [["", ""]] * (len(frequencies.names) - len(labelled))
    rows = zip(frequencies.names, frequencies.clusters.tolist(), labelled, _cells(frequencies.predicted), strict=True)
    return [HEADER, *([name, str(cluster), *of_labels, *predicted] for name, cluster, of_labels, predicted in rows)]


def _cells(counts: np.ndarray) -> list[list[str]]:
    """Each count, and its percentage of their sum."""
    percent = 100 * counts / max(counts.sum(), 1)
    return [[str(count), f"{share:.4f}"] for count, share in zip(counts.tolist(), percent.tolist(), strict=True)]
