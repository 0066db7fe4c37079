"""What figures and report show of an evaluation: pictures, and results of each image."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


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


def pictures_of(batch: Mapping[str, Tensor], clusters: Mapping[str, Tensor], shown: Collection[int]) -> list[Picture]:
    """Pictures of the images of a batch whose indices are shown; ``clusters`` are B×H×W ids by map name."""
    return [
        Picture(
            index,
            batch["img"][row].float().cpu(),
            batch["label"][row].cpu().numpy(),
            {name: ids[row].cpu().numpy() for name, ids in clusters.items()},
        )
        for row, index in enumerate(batch["index"].tolist())
        if index in shown
    ]


@dataclass(frozen=True)
class ImageResult:
    """Predicted clusters of one image and their overlap with its labels, compact enough to keep for every image.

    The matching of clusters to classes is known only after the last image, so scores are computed on demand.

    Attributes:
        index: the image's index in the dataset.
        pairs: non-zero entries of the image's confusion matrix, m×3 int64: cluster, class, pixels.
        shape: (H, W).
        packed: the H×W cluster ids, uint16, compressed to some kilobytes.
    """

    index: int
    pairs: np.ndarray
    shape: tuple[int, int]
    packed: bytes

    def clusters(self) -> np.ndarray:
        """H×W cluster ids."""
        return np.frombuffer(zlib.decompress(self.packed), dtype=np.uint16).reshape(self.shape)

    def accuracy(self, class_of_cluster: np.ndarray) -> float:
        """Percentage of labelled pixels that are correct, by the strict protocol; NaN without labelled pixels.

        Args:
            class_of_cluster: class of each cluster, −1 for none.
        """
        clusters, classes, pixels = self.pairs.T
        total = pixels.sum()
        return float(100 * pixels[class_of_cluster[clusters] == classes].sum() / total) if total else float("nan")


def image_result(index: int, clusters: np.ndarray, label: np.ndarray, n_clusters: int, n_classes: int) -> ImageResult:
    """The result of one image, from its H×W cluster ids and labels; labels outside [0, n_classes) are void."""
    labelled = (label >= 0) & (label < n_classes)
    cells = clusters[labelled].astype(np.int64) * n_classes + label[labelled]
    counts = np.bincount(cells, minlength=n_clusters * n_classes)
    (occurring,) = counts.nonzero()
    ids = clusters.astype(np.uint16)
    pairs = np.stack([occurring // n_classes, occurring % n_classes, counts[occurring]], axis=1)
    height, width = ids.shape
    return ImageResult(index, pairs, (height, width), zlib.compress(ids.tobytes(), level=1))


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
