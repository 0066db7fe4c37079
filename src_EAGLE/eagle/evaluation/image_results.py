"""What became of each image of an evaluation, small enough to keep for all of them, and the best and worst ones."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ImageResult:
    """One image's predicted clusters and what they met in its label.

    Which class a cluster is shows at the end of an evaluation; until then an image has no score.

    Attributes:
        index: its number in the dataset.
        pairs: m×3 int64, a row for each pair that occurs: cluster, class, pixels.
        shape: (H, W).
        packed: the H×W cluster ids, compressed; some kilobytes where segments are large.
        dtype: of the ids.
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
        """Correct pixels in percent of the labelled ones; pixels of clusters without a class are errors (strict).

        Args:
            class_of_cluster: each cluster's class, −1 for none.

        Returns:
            NaN where nothing is labelled.
        """
        clusters, classes, pixels = self.pairs.T
        total = pixels.sum()
        return float(100 * pixels[class_of_cluster[clusters] == classes].sum() / total) if total else float("nan")


def image_result(index: int, clusters: np.ndarray, label: np.ndarray, n_clusters: int, n_classes: int) -> ImageResult:
    """Count and pack one image.

    Args:
        index: its number in the dataset.
        clusters: H×W cluster ids.
        label: H×W class ids; those outside [0, n_classes) are void.
        n_clusters: clusters of the map.
        n_classes: classes of the labels.
    """
    labelled = (label >= 0) & (label < n_classes)
    cells = clusters[labelled].astype(np.int64) * n_classes + label[labelled]
    counts = np.bincount(cells, minlength=n_clusters * n_classes)
    (met,) = counts.nonzero()
    ids = clusters.astype(np.min_scalar_type(n_clusters))
    pairs = np.stack([met // n_classes, met % n_classes, counts[met]], axis=1)
    height, width = ids.shape
    return ImageResult(index, pairs, (height, width), zlib.compress(ids.tobytes(), level=1), ids.dtype.str)


def best_median_worst(
    results: Sequence[ImageResult], class_of_cluster: np.ndarray, n_each: int
) -> dict[str, list[tuple[float, ImageResult]]]:
    """Images with the highest, middle and lowest accuracy, none of them twice; the lower number first among equals.

    Args:
        results: of the whole dataset; images without a labelled pixel are passed over.
        class_of_cluster: each cluster's class, −1 for none.
        n_each: the most images of a kind; a dataset of less than three times as many gives fewer.

    Returns:
        "best" (the best one first), "median" and "worst" (the worst one first): accuracy and image.
    """
    scored = [(result.accuracy(class_of_cluster), result) for result in results]
    ranked = [pair for pair in scored if not np.isnan(pair[0])]
    ranked.sort(key=lambda pair: (-pair[0], pair[1].index))
    n = min(n_each, -(-len(ranked) // 3))
    best, rest = ranked[:n], ranked[n:]
    worst, rest = rest[::-1][:n], rest[: max(len(rest) - n, 0)]
    start = max((len(rest) - n) // 2, 0)
    return {"best": best, "median": rest[start : start + n], "worst": worst}
