"""Score the maps of probes on a labelled dataset (docs/method.md §9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn

from eagle.data.datamodule import batches_by_shape, evaluation_loader
from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.labels import colored, write_ids, write_image
from eagle.data.views import EvaluationViews
from eagle.distributed import all_gather_objects
from eagle.errors import DataError
from eagle.evaluation.details import ImageResult, Picture, image_result, pictures_of
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.maps.probe_maps import ProbeMaps, without_cuts
from eagle.models.cluster_tree import ClusterCut


class PredictionFolder:
    """``<root>/<map>/ids/NAME.png`` (class ids; see ``write_ids``) and ``<root>/<map>/color/NAME.png`` for each image.

    The matching is known only after the last image: ``ids`` holds cluster ids until ``finish``.

    Args:
        root: the folder.
        dataset: the evaluated dataset, for the image names.
    """

    def __init__(self, root: Path, dataset: SegmentationDataset) -> None:
        self.root = root
        self._dataset = dataset

    def write(self, map_name: str, index: int, clusters: np.ndarray) -> None:
        """Write an image's H×W cluster ids."""
        write_ids(self._path(map_name, "ids", index), clusters, int(clusters.max()) + 1)

    def finish(self, class_of_cluster: Mapping[str, np.ndarray], classes: Classes) -> None:
        """Replace cluster ids by class ids and write the colour images.

        Args:
            class_of_cluster: class of each cluster (−1 for none), by map name.
            classes: names and palette.
        """
        for map_name, table in class_of_cluster.items():
            for index in range(len(self._dataset)):
                path = self._path(map_name, "ids", index)
                ids = table[np.asarray(Image.open(path))]
                write_ids(path, ids, len(classes))
                write_image(self._path(map_name, "color", index), colored(ids, classes.palette))

    def _path(self, map_name: str, kind: str, index: int) -> Path:
        return self.root / map_name / kind / f"{self._dataset.name(index)}.png"


@dataclass(frozen=True)
class Evaluation:
    """Metrics by map name (refined maps end in their steps, e.g. ``+crf``), pictures, and images' results."""

    metrics: dict[str, UnsupervisedMetrics]
    pictures: list[Picture]
    images: list[ImageResult]


def most_refined(map_names: Sequence[str]) -> str:
    """The last map that is not of a further cut."""
    return without_cuts(map_names)[-1]


class Evaluator(pl.LightningModule):
    """Accumulates a confusion matrix per map during ``Trainer.test``.

    Channels of maps "linear…" are classes, those of other maps are matched to classes. Arguments as for ``evaluate``;
    ``shown`` are the indices of the images kept as pictures.
    """

    def __init__(
        self,
        probes: ProbeMaps,
        n_classes: int,
        shown: set[int],
        predictions: PredictionFolder | None,
        detailed: bool = False,
    ) -> None:
        super().__init__()
        self.probes = probes
        self.shown = shown
        self.predictions = predictions
        self.pictures: list[Picture] = []
        self.metrics = nn.ModuleList(
            UnsupervisedMetrics(
                "", n_classes, n - n_classes, compute_hungarian=not name.startswith("linear"),
                any_cluster=isinstance(probes.probes[name.split("+")[0]], ClusterCut),
            )
            for name, n in probes.n_clusters.items()
        )  # fmt: skip
        self.names = list(probes.n_clusters)
        self.detailed, self.n_classes = detailed, n_classes
        self.images: list[ImageResult] = []

    def transfer_batch_to_device(
        self, batch: list[dict[str, Tensor]], device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a list of batches except their indices, which the CPU reads: copying them back would wait."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return [there | {"index": here["index"]} for there, here in zip(moved, batch, strict=True)]

    def test_step(self, batches: list[Mapping[str, Tensor]], batch_idx: int) -> None:  # noqa: ARG002
        """Score a list of batches, one per image shape."""
        for batch in batches:
            maps = self.probes(batch["img"])
            clusters = {name: scores.argmax(dim=1) for name, scores in maps.items()}
            for name, metric in zip(self.names, self.metrics, strict=True):
                cast(UnsupervisedMetrics, metric).update(clusters[name], batch["label"])
            indices = batch["index"].tolist()
            if self.predictions is not None:
                for name, ids in clusters.items():
                    for index, image_ids in zip(indices, ids.cpu().numpy(), strict=True):
                        self.predictions.write(name, index, image_ids)
            self.pictures += pictures_of(batch, clusters, self.shown)
            if self.detailed:
                name = most_refined(self.names)
                labels, n_clusters = batch["label"].cpu().numpy(), self.probes.n_clusters[name]
                for index, ids, label in zip(indices, clusters[name].cpu().numpy(), labels, strict=True):
                    self.images.append(image_result(index, ids, label, n_clusters, self.n_classes))

    def on_test_epoch_end(self) -> None:
        """Gather counts, pictures and results of all devices; their predictions are already on disk."""
        for metric in self.metrics:
            cast(UnsupervisedMetrics, metric).sync()
        self.pictures = sorted(all_gather_objects(self.pictures), key=lambda picture: picture.index)
        self.images = sorted(all_gather_objects(self.images), key=lambda image: image.index)


def evaluate(
    trainer: pl.Trainer,
    probes: ProbeMaps,
    views: EvaluationViews,
    batch_size: int,
    num_workers: int,
    n_pictures: int,
    predictions: PredictionFolder | None = None,
    detailed: bool = False,
) -> Evaluation:
    """Score every map on a labelled dataset in one pass.

    Args:
        trainer: sets device and precision.
        probes: see ProbeMaps.
        views: the images and labels.
        batch_size: images per batch; does not change the result.
        num_workers: loader processes.
        n_pictures: number of evenly spaced images kept for figures.
        predictions: folder for every image's prediction; None writes nothing.
        detailed: keep the result of every image for the most refined map.

    Raises:
        DataError: the dataset has no labels, or only void ones.
    """
    if not views.dataset.has_labels:
        raise DataError("the dataset has no labels to score against")
    spread = np.linspace(0, len(views) - 1, min(n_pictures, len(views))).astype(int)
    evaluator = Evaluator(probes, len(views.dataset.classes), set(spread.tolist()), predictions, detailed)
    evaluator.eval()
    with torch.no_grad():
        rank, world_size = trainer.global_rank, trainer.world_size
        loader = evaluation_loader(views, batch_size, num_workers, rank, world_size, batches_by_shape)
        trainer.test(evaluator, loader, verbose=False)
    metrics: dict[str, Any] = dict(zip(evaluator.names, evaluator.metrics, strict=True))
    if not all(metric.has_labels() for metric in metrics.values()):
        raise DataError("every label of the dataset is void: there is nothing to score")
    if predictions is not None and trainer.is_global_zero:
        predictions.finish({name: metric.class_of_cluster() for name, metric in metrics.items()}, views.dataset.classes)
    return Evaluation(metrics, evaluator.pictures, evaluator.images)
