"""k-means on the frozen keys: the baseline that a trained model must beat."""

from collections.abc import Mapping

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from eagle.data.datasets.base import DatasetPart, SegmentationDataset
from eagle.data.loading.datamodule import evaluation_loader
from eagle.data.loading.views import EvaluationViews
from eagle.distributed import all_gather_objects
from eagle.evaluation import kmeans
from eagle.evaluation.kmeans import Sample, in_image_order, kmeans_of, sampled_indices, sampled_vectors
from eagle.models.backbone import KeyBackbone
from eagle.models.probes import ClusterLookup


def sampled_images(dataset: SegmentationDataset, seed: int) -> DatasetPart:
    """Draw at most ``kmeans.MOST_IMAGES`` images without replacement, in dataset order."""
    return DatasetPart(dataset, sampled_indices(len(dataset), seed))


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
        views: images to draw keys from: the same number from each image, ``kmeans.MOST_VECTORS`` in all at most.
        n_clusters: number of centres.
        seed: seed of the draw and of the initial centres.
        batch_size: images per batch; does not change the draw.
        num_workers: loader processes.

    Returns:
        A ClusterLookup over K's channels, on the CPU; the same in every process.
    """
    sample = KeySample(backbone, max(1, kmeans.MOST_VECTORS // max(1, len(views))), seed)
    rank, world_size = trainer.global_rank, trainer.world_size
    trainer.test(sample, evaluation_loader(views, batch_size, num_workers, rank, world_size), verbose=False)
    centres = kmeans_of(sample.keys(), n_clusters, seed) if trainer.is_global_zero else None
    probe = ClusterLookup(backbone.n_feats, n_clusters)
    probe.load_state_dict({"clusters": trainer.strategy.broadcast(centres)})
    return probe


class KeySample(pl.LightningModule):
    """Draws normalised keys from each image in Lightning's test loop; see ``sampled_vectors``.

    Args:
        backbone: computes K.
        per_image: keys per image.
        seed: seed of the draw.
    """

    def __init__(self, backbone: KeyBackbone, per_image: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.per_image = per_image
        self.seed = seed
        self.drawn: Sample = []

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Draw keys from each image of a batch."""
        self.drawn += sampled_vectors(self.backbone(batch["img"]), batch["index"].tolist(), self.per_image, self.seed)

    def on_test_epoch_end(self) -> None:
        """Gather the keys of all processes."""
        self.drawn = all_gather_objects(self.drawn)

    def keys(self) -> np.ndarray:
        """All drawn keys in the order of the images, n×C float32."""
        return in_image_order(self.drawn)
