"""Pixel shares of each class in the labels and of its matched cluster in the predictions (STEGO's histograms)."""

from dataclasses import dataclass

import numpy as np

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS, VOID_COLOR, numbered_clusters

HEADER = ("name", "cluster", "labelled_pixels", "labelled_percent", "predicted_pixels", "predicted_percent")


@dataclass(frozen=True)
class Frequencies:
    """Pixel counts per class and its matched cluster, followed by the clusters without a class.

    Attributes:
        names: n names: classes, then clusters without a class.
        colors: n×3 uint8, as on label maps.
        clusters: n cluster ids.
        labelled: labelled pixels of each class; empty without labels.
        predicted: n counts of predicted pixels.
    """

    names: tuple[str, ...]
    colors: np.ndarray
    clusters: np.ndarray
    labelled: np.ndarray
    predicted: np.ndarray

    @property
    def labelled_percent(self) -> np.ndarray:
        """``labelled`` as a percentage of all labelled pixels."""
        return _percent(self.labelled)

    @property
    def predicted_percent(self) -> np.ndarray:
        """``predicted`` as a percentage of all counted pixels."""
        return _percent(self.predicted)

    def table(self) -> list[list[str]]:
        """One row of cells per name, with the columns of HEADER; label cells are empty for clusters without a class."""
        unlabelled = [["", ""]] * (len(self.names) - len(self.labelled))
        return [
            [name, str(cluster), *labelled, *predicted]
            for name, cluster, labelled, predicted in zip(
                self.names,
                self.clusters.tolist(),
                [*_cells(self.labelled, self.labelled_percent), *unlabelled],
                _cells(self.predicted, self.predicted_percent),
                strict=True,
            )
        ]


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
        labelled=confusion.sum(axis=0),
        predicted=confusion.sum(axis=1)[clusters],
    )


def cluster_frequencies(counts: np.ndarray) -> Frequencies:
    """Frequencies of the clusters over all pixels of unlabelled images; ``counts`` are the pixels of each cluster."""
    clusters = numbered_clusters(len(counts))
    return Frequencies(clusters.names, clusters.palette, np.arange(len(counts)), counts[:0], counts)


def _percent(counts: np.ndarray) -> np.ndarray:
    return 100 * counts / max(counts.sum(), 1)


def _cells(counts: np.ndarray, percent: np.ndarray) -> list[list[str]]:
    return [[str(count), f"{share:.4f}"] for count, share in zip(counts.tolist(), percent.tolist(), strict=True)]
