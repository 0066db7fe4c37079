"""k-means of the frozen keys K: the baseline that a trained model must beat."""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from eagle.data.datamodule import evaluation_loader
from eagle.data.datasets.base import SegmentationDataset
from eagle.data.views import EvaluationViews
from eagle.distributed import all_gather_objects
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
    trainer: pl.Trainer,
    backbone: KeyBackbone,
    views: EvaluationViews,
    n_clusters: int,
    seed: int,
    batch_size: int,
    num_workers: int,
) -> ClusterLookup:
    """Fit k-means to normalised keys and return the centres as a probe.

    Args:
        trainer: sets device and precision.
        backbone: computes K.
        views: images to draw keys from: the same number from each image, ``MOST_VECTORS`` in all at most.
        n_clusters: number of centres.
        seed: seed of the draw and of the initial centres.
        batch_size: images per batch; does not change the draw.
        num_workers: loader processes.

    Returns:
        A ClusterLookup over K's channels, on the CPU; the same in every process.
    """
    sampler = KeySampler(backbone, max(1, MOST_VECTORS // max(1, len(views))), seed)
    loader = evaluation_loader(views, batch_size, num_workers, trainer.global_rank, trainer.world_size)
    batches: Any = trainer.predict(sampler, loader)
    drawn = sorted(all_gather_objects(list(chain(*batches))), key=itemgetter(0))
    centres = None
    if trainer.is_global_zero:
        keys = np.concatenate([vectors for _, vectors in drawn])
        fitted = KMeans(n_clusters, n_init=STARTS, random_state=seed).fit(keys)
        centres = torch.from_numpy(np.asarray(fitted.cluster_centers_, dtype=np.float32))
    probe = ClusterLookup(backbone.n_feats, n_clusters)
    probe.load_state_dict({"clusters": trainer.strategy.broadcast(centres)})
    return probe


class KeySampler(pl.LightningModule):
    """Draws normalised keys from each image in Lightning's predict loop; arguments as for ``sampled_vectors``."""

    def __init__(self, backbone: KeyBackbone, per_image: int, seed: int) -> None:
        super().__init__()
        self.backbone, self.per_image, self.seed = backbone, per_image, seed

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Sample:  # noqa: ARG002
        """Draw keys from each image of a batch."""
        return sampled_vectors(self.backbone(batch["img"]), batch["index"].tolist(), self.per_image, self.seed)


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
