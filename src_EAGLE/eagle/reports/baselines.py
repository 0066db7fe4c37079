"""k-means on the frozen keys: the baseline that a trained model must beat."""

from collections.abc import Mapping

import numpy as np
import pytorch_lightning as pl
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from eagle.data.datasets.base import DatasetPart, SegmentationDataset
from eagle.data.loading.datamodule import evaluation_loader
from eagle.data.loading.views import EvaluationViews
from eagle.distributed import all_gather_objects
from eagle.models.backbone import KeyBackbone
from eagle.models.probes import ClusterLookup

# Most images, and most keys over all images, that k-means is fitted to: a cropped dataset has 250,000 images.
MOST_IMAGES = 2_000
MOST_KEYS = 60_000
STARTS = 10


def sampled_images(dataset: SegmentationDataset, seed: int) -> DatasetPart:
    """Draw ``MOST_IMAGES`` images without replacement, in dataset order; keep all images of a smaller dataset."""
    n = min(MOST_IMAGES, len(dataset))
    chosen = np.random.default_rng(seed).choice(len(dataset), n, replace=False)
    return DatasetPart(dataset, sorted(chosen.tolist()))


def kmeans_centres(
    trainer: pl.Trainer,
    backbone: KeyBackbone,
    views: EvaluationViews,
    n_clusters: int,
    seed: int,
    batch_size: int,
    num_workers: int,
) -> ClusterLookup:
    """Fit k-means to normalised keys and return the centres as a probe: lowest inertia of ``STARTS`` k-means++ starts.

    Args:
        trainer: sets device and precision.
        backbone: computes K.
        views: images to draw keys from: the same number from each image, ``MOST_KEYS`` in all at most.
        n_clusters: number of centres.
        seed: seed of the draw and of the initial centres.
        batch_size: images per batch; does not change the draw.
        num_workers: loader processes.

    Returns:
        A ClusterLookup over K's channels, on the CPU; the same in every process.
    """
    sample = KeySample(backbone, max(1, MOST_KEYS // max(1, len(views))), seed)
    rank, world_size = trainer.global_rank, trainer.world_size
    trainer.test(sample, evaluation_loader(views, batch_size, num_workers, rank, world_size), verbose=False)
    centres = None
    if trainer.is_global_zero:
        kmeans = KMeans(n_clusters, n_init=STARTS, random_state=seed).fit(sample.keys())
        centres = torch.from_numpy(np.asarray(kmeans.cluster_centers_, dtype=np.float32))
    probe = ClusterLookup(backbone.n_feats, n_clusters)
    probe.load_state_dict({"clusters": trainer.strategy.broadcast(centres)})
    return probe


class KeySample(pl.LightningModule):
    """Draws normalised keys from each image in Lightning's test loop.

    Args:
        backbone: computes K.
        per_image: keys per image; all keys of an image with fewer patches.
        seed: seed of the draw, combined with the image's index, so that batches and processes do not change the draw.
    """

    def __init__(self, backbone: KeyBackbone, per_image: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.per_image = per_image
        self.seed = seed
        self.drawn: list[tuple[int, np.ndarray]] = []

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Draw keys from each image of a batch."""
        keys = F.normalize(self.backbone(batch["img"]).float(), dim=1).flatten(2).transpose(1, 2)
        n_patches = keys.shape[1]
        for index, image_keys in zip(batch["index"].tolist(), keys.cpu().numpy(), strict=True):
            generator = np.random.default_rng((self.seed, index))
            chosen = generator.choice(n_patches, min(self.per_image, n_patches), replace=False)
            self.drawn.append((index, image_keys[chosen]))

    def on_test_epoch_end(self) -> None:
        """Gather the keys of all processes in the order of the images."""
        self.drawn = sorted(all_gather_objects(self.drawn), key=lambda drawn: drawn[0])

    def keys(self) -> np.ndarray:
        """All drawn keys, n×C float32."""
        return np.concatenate([keys for _, keys in self.drawn])
