"""What figures and report show of an evaluation: pictures, results of each image, example windows of each cluster."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS, VOID_COLOR, numbered_clusters
from eagle.distributed import all_gather_objects

MOST_EXAMPLES = 6
# Over all clusters; with many clusters each has fewer examples.
MOST_EXAMPLES_IN_ALL = 240
# Windows are WINDOW_BLOCKS blocks wide, about WINDOW_SHARE of the image's short side, and start at block borders.
WINDOW_BLOCKS = 4
WINDOW_SHARE = 0.3


@dataclass(frozen=True)
class Picture:
    """One evaluated image, for figures.

    Attributes:
        index: its index in the dataset.
        img: 3×H×W, normalised.
        label: H×W class ids, −1 = void.
        clusters: H×W cluster ids by map name.
    """

    index: int
    img: Tensor
    label: np.ndarray
    clusters: dict[str, np.ndarray]


@dataclass(frozen=True)
class ImageResult:
    """Predicted clusters of one image and their overlap with its labels, compact enough to keep for every image.

    The matching of clusters to classes is known only after the last image, so scores are computed on demand.

    Attributes:
        index: the image's index in the dataset.
        pairs: non-zero entries of the image's confusion matrix, m×3 int64: cluster, class, pixels.
        shape: (H, W).
        packed: the H×W cluster ids, compressed to some kilobytes.
        dtype: dtype of the ids.
    """

    index: int
    pairs: np.ndarray
    shape: tuple[int, int]
    packed: bytes
    dtype: str

    def clusters(self) -> np.ndarray:
        """H×W cluster ids."""
        return np.frombuffer(zlib.decompress(self.packed), dtype=self.dtype).reshape(self.shape)

    def accuracy(self, class_of_cluster: np.ndarray) -> float:
        """Percentage of labelled pixels that are correct, by the strict protocol; NaN without labelled pixels.

        Args:
            class_of_cluster: class of each cluster, −1 for none.
        """
        clusters, classes, pixels = self.pairs.T
        total = pixels.sum()
        return float(100 * pixels[class_of_cluster[clusters] == classes].sum() / total) if total else float("nan")


@dataclass(frozen=True)
class ClusterExample:
    """An example window of a cluster.

    Attributes:
        cluster: the cluster id.
        index: the image's index in the dataset.
        top: first row of the window, in pixels of the evaluated image.
        left: first column.
        side: height and width in pixels.
        confidence: mean probability of the cluster over the window; pixels of other clusters count 0.
    """

    cluster: int
    index: int
    top: int
    left: int
    side: int
    confidence: float


class Details:
    """Results of every image and example windows of every cluster, for one map.

    Args:
        map_name: name of the map.
        n_clusters: number of its clusters.
        n_classes: number of classes of the labels.
    """

    def __init__(self, map_name: str, n_clusters: int, n_classes: int) -> None:
        self.map_name = map_name
        self.images: list[ImageResult] = []
        self.examples: list[ClusterExample] = []
        self._n_clusters = n_clusters
        self._n_classes = n_classes
        self._per_cluster = max(1, min(MOST_EXAMPLES, MOST_EXAMPLES_IN_ALL // n_clusters))

    def update(self, index: int, clusters: np.ndarray, confidence: np.ndarray, label: np.ndarray) -> None:
        """Add an image.

        Args:
            index: its index in the dataset.
            clusters: H×W cluster ids, as scored.
            confidence: H×W, the probability of each pixel's cluster.
            label: H×W class ids; those outside [0, n_classes) are void.
        """
        self.images.append(image_result(index, clusters, label, self._n_clusters, self._n_classes))
        found = image_examples(index, clusters, confidence)
        self.examples = best_examples([*self.examples, *found], self._per_cluster)

    def sync(self) -> None:
        """Gather the details of all processes; the result equals that of one process with all images."""
        self.images = sorted(all_gather_objects(self.images), key=lambda image: image.index)
        self.examples = best_examples(all_gather_objects(self.examples), self._per_cluster)


def image_result(index: int, clusters: np.ndarray, label: np.ndarray, n_clusters: int, n_classes: int) -> ImageResult:
    """The result of one image; arguments as in ``Details``."""
    labelled = (label >= 0) & (label < n_classes)
    cells = clusters[labelled].astype(np.int64) * n_classes + label[labelled]
    counts = np.bincount(cells, minlength=n_clusters * n_classes)
    (occurring,) = counts.nonzero()
    ids = clusters.astype(np.min_scalar_type(n_clusters))
    pairs = np.stack([occurring // n_classes, occurring % n_classes, counts[occurring]], axis=1)
    height, width = ids.shape
    return ImageResult(index, pairs, (height, width), zlib.compress(ids.tobytes(), level=1), ids.dtype.str)


def image_examples(index: int, clusters: np.ndarray, confidence: np.ndarray) -> list[ClusterExample]:
    """The window of highest confidence in one image, for each cluster that occurs in a window.

    Args:
        index: the image's index in the dataset.
        clusters: H×W cluster ids.
        confidence: H×W, the probability of each pixel's cluster.
    """
    block = max(1, round(WINDOW_SHARE * min(clusters.shape) / WINDOW_BLOCKS))
    n_blocks = min(WINDOW_BLOCKS, *(side // block for side in clusters.shape))
    found = []
    for cluster in np.unique(clusters).tolist():  # one at a time: all of them may not fit into memory
        own = torch.from_numpy(np.where(clusters == cluster, confidence, 0).astype(np.float32))
        windows = F.avg_pool2d(F.avg_pool2d(own[None], block), n_blocks, stride=1)[0]
        top, left = divmod(int(windows.argmax()), windows.shape[1])
        if windows[top, left] > 0:
            mean = float(windows[top, left])
            found.append(ClusterExample(cluster, index, top * block, left * block, n_blocks * block, mean))
    return found


def best_examples(examples: Iterable[ClusterExample], per_cluster: int) -> list[ClusterExample]:
    """The most confident windows of each cluster, ordered by cluster; ties go to the lower image index."""
    ordered = sorted(examples, key=lambda example: (example.cluster, -example.confidence, example.index))
    groups = groupby(ordered, key=lambda example: example.cluster)
    return [example for _, group in groups for example in islice(group, per_cluster)]


def best_median_worst(
    results: Sequence[ImageResult], class_of_cluster: np.ndarray, n_each: int
) -> dict[str, list[tuple[float, ImageResult]]]:
    """Disjoint groups of images with the highest, middle and lowest accuracy; ties go to the lower index.

    Args:
        results: all images of the dataset; those without labelled pixels are ignored.
        class_of_cluster: class of each cluster, −1 for none.
        n_each: largest number of images per group; fewer if there are less than 3·n_each images.

    Returns:
        (accuracy, image) pairs of "best" (best first), "median" and "worst" (worst first).
    """
    scored = [(result.accuracy(class_of_cluster), result) for result in results]
    ranked = [pair for pair in scored if not np.isnan(pair[0])]
    ranked.sort(key=lambda pair: (-pair[0], pair[1].index))
    n = min(n_each, -(-len(ranked) // 3))
    best, rest = ranked[:n], ranked[n:]
    worst, rest = rest[::-1][:n], rest[: max(len(rest) - n, 0)]
    start = max((len(rest) - n) // 2, 0)
    return {"best": best, "median": rest[start : start + n], "worst": worst}


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
