"""k-means of the frozen keys K: the baseline that a trained model must beat."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from eagle.data.datasets.base import SegmentationDataset
from eagle.data.views import EvaluationViews
from eagle.distributed import all_gather_objects
from eagle.errors import DataError
from eagle.evaluation.evaluator import device_batches
from eagle.models.backbone import KeyBackbone
from eagle.models.probes import ClusterLookup

# Most images that k-means is fitted to: a cropped dataset has 250,000 images.
MOST_IMAGES = 2_000
# Most vectors over all images.
MOST_VECTORS = 60_000
STARTS = 10

Sample = list[tuple[int, np.ndarray]]


def sampled_images(dataset: SegmentationDataset, seed: int, most: int | None = None) -> SegmentationDataset:
    """Draw at most ``most`` images (None: ``MOST_IMAGES``) without replacement, in dataset order."""
    n = min(most or MOST_IMAGES, len(dataset))
    return dataset.part(sorted(np.random.default_rng(seed).choice(len(dataset), n, replace=False).tolist()))


def kmeans_centres(
    machine: Fabric,
    backbone: KeyBackbone,
    views: EvaluationViews,
    n_clusters: int,
    seed: int,
    batch_size: int,
    num_workers: int,
) -> ClusterLookup:
    """Fit k-means to normalised keys and return the centres as a probe.

    Args:
        machine: device and precision; of several processes, each computes its share of the keys.
        backbone: computes K.
        views: images to draw keys from: the same number from each image, ``MOST_VECTORS`` in all at most.
        n_clusters: number of centres.
        seed: seed of the draw and of the initial centres.
        batch_size: images per batch; does not change the draw.
        num_workers: loader processes.

    Returns:
        A ClusterLookup over K's channels, on the CPU; the same in every process.
    """
    machine.to_device(backbone)
    per_image = max(1, MOST_VECTORS // max(1, len(views)))
    sample: Sample = []
    for batch in device_batches(machine, views, batch_size, num_workers, "keys for k-means"):
        with torch.no_grad(), machine.autocast():
            sample += sampled_vectors(backbone(batch["img"]), batch["index"].tolist(), per_image, seed)
    drawn = sorted(all_gather_objects(sample), key=itemgetter(0))
    probe: Any = kmeans_probe(drawn, n_clusters, seed, n_init=STARTS) if machine.is_global_zero else None
    return machine.broadcast(probe)


def kmeans_probe(sample: Sample, n_clusters: int, seed: int, **options: Any) -> ClusterLookup:
    """The centres of k-means as a probe; options as of scikit-learn's KMeans. DataError: too few vectors."""
    vectors = np.concatenate([drawn for _, drawn in sample])
    if len(vectors) < n_clusters:
        raise DataError(f"{len(vectors)} patches of training images are too few for {n_clusters} clusters of k-means")
    centres = KMeans(n_clusters, random_state=seed, **options).fit(vectors).cluster_centers_
    probe = ClusterLookup(vectors.shape[1], n_clusters)
    probe.load_state_dict({"clusters": torch.from_numpy(np.asarray(centres, dtype=np.float32))})
    return probe


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
    n_patches, sample = vectors.shape[1], []
    for index, of_image in zip(indices, vectors, strict=True):
        chosen = np.random.default_rng((seed, index)).choice(n_patches, min(per_image, n_patches), replace=False)
        sample.append((index, of_image[chosen]))
    return sample
