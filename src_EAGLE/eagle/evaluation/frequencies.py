"""Share of the labelled pixels of each class beside that of the cluster matched to it (STEGO's histograms)."""

from dataclasses import dataclass

import numpy as np

from eagle.data.class_map import NO_CLASS, numbered_clusters
from eagle.data.datasets.base import Classes
from eagle.data.palette import VOID_COLOR

HEADER = ("name", "cluster", "labelled_pixels", "labelled_percent", "predicted_pixels", "predicted_percent")


@dataclass(frozen=True)
class Frequencies:
    """Pixels of classes with the clusters matched to them, and of the clusters without a class after them.

    Attributes:
        names: n, of classes, then of clusters.
        colors: n×3 uint8, as on label maps.
        clusters: n cluster numbers.
        labelled: pixel counts of the classes, none where there are no labels.
        predicted: n pixel counts.
    """

    names: tuple[str, ...]
    colors: np.ndarray
    clusters: np.ndarray
    labelled: np.ndarray
    predicted: np.ndarray

    @property
    def labelled_percent(self) -> np.ndarray:
        """Of all labelled pixels."""
        return _percent(self.labelled)

    @property
    def predicted_percent(self) -> np.ndarray:
        """Of all pixels that were counted."""
        return _percent(self.predicted)

    def table(self) -> list[list[str]]:
        """A row of cells for each name under HEADER; a cluster without a class has no labelled pixels."""
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
    """Of labelled pixels: every class with its cluster, then the clusters without a class.

    Args:
        confusion: (n + extra)×n counts, row = cluster, column = label.
        class_of_cluster: each cluster's class, −1 for none; every class has one cluster.
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
    """Of all pixels, where there are no labels: the clusters by number.

    Args:
        counts: pixels of each cluster.
    """
    clusters = numbered_clusters(len(counts))
    return Frequencies(clusters.names, clusters.palette, np.arange(len(counts)), counts[:0], counts)


def _percent(counts: np.ndarray) -> np.ndarray:
    return 100 * counts / max(counts.sum(), 1)


def _cells(counts: np.ndarray, percent: np.ndarray) -> list[list[str]]:
    return [[str(count), f"{share:.4f}"] for count, share in zip(counts.tolist(), percent.tolist(), strict=True)]
