"""k-means of unit vectors drawn from images: the baseline on keys, and that of codes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from eagle.data.datasets.base import SegmentationDataset
from eagle.data.loading.datamodule import batch_of_readable, evaluation_loader
from eagle.data.loading.views import CleanViews

# Most images that k-means is fitted to: a cropped dataset has 250,000 images.
MOST_IMAGES = 2_000
# Most vectors over all images.
MOST_VECTORS = 60_000
STARTS = 10
# Principal components of the codes that k-means is fitted to. On MSRC, 60,000 codes of 512
# channels take 7 s on one core instead of 40 s, and the inertia of all codes is the same within 0.1 %.
CODE_COMPONENTS = 64

Sample = list[tuple[int, np.ndarray]]


def sampled_indices(n_images: int, seed: int) -> list[int]:
    """Draw the indices of ``MOST_IMAGES`` images without replacement, ascending; all indices of a smaller dataset."""
    n = min(MOST_IMAGES, n_images)
    return sorted(np.random.default_rng(seed).choice(n_images, n, replace=False).tolist())


def sampled_vectors(features: Tensor, indices: Sequence[int], per_image: int, seed: int) -> Sample:
    """Draw unit-length feature vectors from each image of a batch.

    Args:
        features: B×C×h×w.
        indices: the images' indices; with ``seed`` they alone determine the draw, whatever the batches are.
        per_image: vectors per image; all vectors of an image with fewer patches.
        seed: seed of the draw.

    Returns:
        For each image its index and n×C float32.
    """
    vectors = F.normalize(features.float(), dim=1).flatten(2).transpose(1, 2).cpu().numpy()
    sample = []
    for index, image_vectors in zip(indices, vectors, strict=True):
        n_patches = len(image_vectors)
        generator = np.random.default_rng((seed, index))
        chosen = generator.choice(n_patches, min(per_image, n_patches), replace=False)
        sample.append((index, image_vectors[chosen]))
    return sample


def kmeans_of(vectors: np.ndarray, n_clusters: int, seed: int) -> Tensor:
    """Full k-means: the centres of lowest inertia of ``STARTS`` k-means++ starts, n_clusters×C float32."""
    return torch.from_numpy(np.asarray(_fitted(vectors, n_clusters, seed).cluster_centers_, dtype=np.float32))


def fast_kmeans_of(vectors: np.ndarray, n_clusters: int, seed: int) -> Tensor:
    """``kmeans_of`` the first ``CODE_COMPONENTS`` principal components; a centre is the mean of its vectors."""
    pca = PCA(min(CODE_COMPONENTS, *vectors.shape), svd_solver="covariance_eigh")
    kmeans = _fitted(pca.fit_transform(vectors), n_clusters, seed)
    centres = np.asarray(pca.inverse_transform(kmeans.cluster_centers_), dtype=np.float32)
    for cluster in np.unique(kmeans.labels_):  # with equal vectors some clusters stay empty
        centres[cluster] = vectors[kmeans.labels_ == cluster].mean(axis=0)
    return torch.from_numpy(centres)


def _fitted(vectors: np.ndarray, n_clusters: int, seed: int) -> KMeans:
    return KMeans(n_clusters, n_init=STARTS, random_state=seed).fit(vectors)


@torch.no_grad()
def kmeans_of_codes(
    codes: Callable[[Mapping[str, Tensor]], Tensor],
    dataset: SegmentationDataset,
    n_clusters: int,
    cfg: Any,
    device: torch.device,
    fit: Callable[[np.ndarray, int, int], Tensor] = fast_kmeans_of,
) -> Tensor:
    """Fit k-means to the codes of clean training images.

    ``cfg.seed`` and the codes determine the result; no global random state is read or changed.

    Args:
        codes: a batch with ``img`` on the device and ``index`` on the CPU → B×C×h×w.
        dataset: the training images.
        n_clusters: number of centres.
        cfg: has res, batch_size, num_workers, seed and on_bad_image.
        device: where codes are computed.
        fit: ``fast_kmeans_of`` or ``kmeans_of``.

    Returns:
        n_clusters×C float32 on the CPU.

    Raises:
        DataError: an image is bad and may not be skipped.
    """
    indices = sampled_indices(len(dataset), cfg.seed)
    views = CleanViews(dataset, indices, cfg.res, cfg.on_bad_image)
    per_image = max(1, MOST_VECTORS // len(indices))
    sample: Sample = []
    for batch in evaluation_loader(views, cfg.batch_size, cfg.num_workers, collate_fn=batch_of_readable):
        if batch is not None:
            maps = codes({"img": batch["img"].to(device, non_blocking=True), "index": batch["index"]})
            sample += sampled_vectors(maps, batch["index"].tolist(), per_image, cfg.seed)
    return fit(in_image_order(sample), n_clusters, cfg.seed)


def in_image_order(sample: Sample) -> np.ndarray:
    """The vectors of a sample in the order of the images, n×C float32."""
    return np.concatenate([vectors for _, vectors in sorted(sample, key=lambda drawn: drawn[0])])
