"""Score the maps of probes on a labelled dataset (docs/method.md §9)."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

from eagle.data.datamodule import batches_by_shape, evaluation_loader
from eagle.data.datasets.base import SegmentationDataset
from eagle.data.labels import colored, write_ids, write_image
from eagle.data.views import EvaluationViews
from eagle.distributed import all_gather_objects
from eagle.errors import DataError
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.maps.probe_maps import ProbeMaps, without_cuts
from eagle.models.cluster_tree import ClusterCut


@dataclass(frozen=True)
class ImageResult:
    """Label and clusters of one image, some kilobytes each: the class of a cluster is known only after the last image.

    Attributes:
        index: the image's index in the dataset.
        shape: (H, W).
        packed: compressed int16 ids, by ``label`` and map name.
    """

    index: int
    shape: tuple[int, int]
    packed: dict[str, bytes]

    def ids(self, name: str) -> np.ndarray:
        """H×W class ids of ``label``, −1 = void, or cluster ids of a map."""
        return np.frombuffer(zlib.decompress(self.packed[name]), dtype=np.int16).reshape(self.shape)

    def accuracy(self, map_name: str, class_of_cluster: np.ndarray) -> float:
        """Percentage of labelled pixels that are correct, by the strict protocol; NaN without labelled pixels.

        Args:
            map_name: a kept map.
            class_of_cluster: class of each of its clusters, −1 for none.
        """
        label = self.ids("label")
        right = (class_of_cluster[self.ids(map_name)] == label)[label >= 0]
        return float(100 * right.mean()) if right.size else float("nan")


@dataclass(frozen=True)
class Evaluation:
    """Metrics by map name (refined maps end in their steps, e.g. ``+crf``), and the kept images in dataset order."""

    metrics: dict[str, UnsupervisedMetrics]
    images: list[ImageResult]


def most_refined(map_names: Sequence[str]) -> str:
    """The last map that is not of a further cut."""
    return without_cuts(map_names)[-1]


class Evaluator(pl.LightningModule):
    """Accumulates a confusion matrix per map during ``Trainer.test``.

    Channels of maps "linear…" are classes, those of other maps are matched to classes. Arguments as for ``evaluate``.
    """

    def __init__(self, probes: ProbeMaps, n_classes: int, shown: Collection[int], kept: Collection[str]) -> None:
        super().__init__()
        self.probes = probes
        self.shown = shown
        self.kept = kept
        self.metrics = nn.ModuleDict({
            name: UnsupervisedMetrics(
                "", n_classes, n - n_classes, compute_hungarian=not name.startswith("linear"),
                any_cluster=isinstance(probes.probes[name.split("+")[0]], ClusterCut),
            )
            for name, n in probes.n_clusters.items()
        })  # fmt: skip
        self.images: list[ImageResult] = []

    def test_step(self, batches: list[Mapping[str, Any]], batch_idx: int) -> None:  # noqa: ARG002
        """Score a list of batches, one per image shape."""
        for batch in batches:
            clusters = {name: scores.argmax(dim=1) for name, scores in self.probes(batch["img"]).items()}
            for name, ids in clusters.items():
                cast(UnsupervisedMetrics, self.metrics[name]).update(ids, batch["label"])
            for row, index in enumerate(batch["index"]):
                if kept := clusters if index in self.shown else self.kept:
                    self._keep(index, {"label": batch["label"][row], **{name: clusters[name][row] for name in kept}})

    def _keep(self, index: int, maps: Mapping[str, Tensor]) -> None:
        packed = {name: zlib.compress(ids.short().cpu().numpy().tobytes(), level=1) for name, ids in maps.items()}
        height, width = maps["label"].shape
        self.images.append(ImageResult(index, (height, width), packed))

    def on_test_epoch_end(self) -> None:
        """Gather counts and images of all devices."""
        for metric in self.metrics.values():
            cast(UnsupervisedMetrics, metric).sync()
        self.images = sorted(all_gather_objects(self.images), key=lambda image: image.index)


def evaluate(
    trainer: pl.Trainer,
    probes: ProbeMaps,
    views: EvaluationViews,
    batch_size: int,
    num_workers: int,
    shown: Collection[int] = (),
    kept: Collection[str] = (),
) -> Evaluation:
    """Score every map on a labelled dataset in one pass.

    Args:
        trainer: sets device and precision.
        probes: see ProbeMaps.
        views: the images and labels.
        batch_size: images per batch; does not change the result.
        num_workers: loader processes.
        shown: indices of the images of which all maps are kept.
        kept: names of the maps that are kept of every image.

    Raises:
        DataError: the dataset has no labels, or only void ones.
    """
    if not views.dataset.has_labels:
        raise DataError("the dataset has no labels to score against")
    evaluator = Evaluator(probes, len(views.dataset.classes), shown, kept).eval()
    with torch.no_grad():
        rank, world_size = trainer.global_rank, trainer.world_size
        loader = evaluation_loader(views, batch_size, num_workers, rank, world_size, batches_by_shape)
        trainer.test(evaluator, loader, verbose=False)
    metrics: dict[str, Any] = dict(evaluator.metrics.items())
    if not all(metric.has_labels() for metric in metrics.values()):
        raise DataError("every label of the dataset is void: there is nothing to score")
    return Evaluation(metrics, evaluator.images)


@rank_zero_only
def write_predictions(folder: Path, evaluation: Evaluation, dataset: SegmentationDataset) -> None:
    """Write ``<folder>/<map>/ids/NAME.png`` (class ids; see ``write_ids``) and ``<folder>/<map>/color/NAME.png``.

    Args:
        folder: created if missing.
        evaluation: with all maps of every image.
        dataset: the evaluated dataset.
    """
    palette = dataset.classes.palette
    for map_name, metric in evaluation.metrics.items():
        class_of_cluster = metric.class_of_cluster()
        for image in evaluation.images:
            ids, file = class_of_cluster[image.ids(map_name)], f"{dataset.name(image.index)}.png"
            write_ids(folder / map_name / "ids" / file, ids, len(palette))
            write_image(folder / map_name / "color" / file, colored(ids, palette))
