"""Score the maps of probes on a labelled dataset (docs/method.md §9)."""

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from eagle.data.datamodule import batches_by_shape, evaluation_loader
from eagle.data.datasets.base import SegmentationDataset
from eagle.data.labels import colored, write_ids, write_image
from eagle.data.views import EvaluationViews
from eagle.distributed import all_gather_objects
from eagle.errors import DataError
from eagle.evaluation.metrics import UnsupervisedMetrics, name_by_majority
from eagle.maps.probe_maps import CUT_SIGN, ProbeMaps, without_cuts
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
    shape: tuple[int, ...]
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


def evaluate(
    machine: Fabric,
    probes: ProbeMaps,
    views: EvaluationViews,
    batch_size: int,
    num_workers: int,
    shown: Collection[int] = (),
    kept: Collection[str] = (),
) -> Evaluation:
    """Score every map on a labelled dataset in one pass.

    Channels of maps "linear…" are classes, those of other maps are matched to classes.

    Args:
        machine: device and precision; of several processes, each scores its share of the images.
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
        raise DataError("the dataset has no labels to score against; those of your own images belong in labels/val")
    n_classes = len(views.dataset.classes)
    metrics = {
        name: UnsupervisedMetrics(
            "", n_classes, n - n_classes, compute_hungarian=not name.startswith("linear"),
            any_cluster=isinstance(probes.probes[name.split("+")[0]], ClusterCut),
        )
        for name, n in probes.n_clusters.items()
    }  # fmt: skip
    for module in (probes.eval(), *metrics.values()):
        machine.to_device(module)
    images: list[ImageResult] = []
    for batches in device_batches(machine, views, batch_size, num_workers, "evaluation", batches_by_shape):
        for batch in batches:
            with torch.no_grad(), machine.autocast():
                images += score_batch(probes, metrics, batch, shown, kept)
    for metric in metrics.values():
        metric.sync()
    if not all(metric.has_labels() for metric in metrics.values()):
        raise DataError("every label of the dataset is void: there is nothing to score")
    return Evaluation(metrics, sorted(all_gather_objects(images), key=lambda image: image.index))


def score_batch(
    probes: ProbeMaps,
    metrics: Mapping[str, UnsupervisedMetrics],
    batch: Mapping[str, Any],
    shown: Collection[int],
    kept: Collection[str],
) -> Iterator[ImageResult]:
    """Add images of one shape to the metrics; yield those to keep, as in ``evaluate``."""
    clusters = {name: scores.argmax(dim=1) for name, scores in probes(batch["img"]).items()}
    for name, ids in clusters.items():
        metrics[name].update(ids, batch["label"])
    for row, index in enumerate(batch["index"]):
        if names := clusters if index in shown else kept:
            maps = {"label": batch["label"][row], **{name: clusters[name][row] for name in names}}
            packed = {name: zlib.compress(ids.short().cpu().numpy().tobytes(), level=1) for name, ids in maps.items()}
            yield ImageResult(index, tuple(batch["label"][row].shape), packed)


def device_batches(
    machine: Fabric,
    views: EvaluationViews,
    batch_size: int,
    num_workers: int,
    title: str,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> Iterator[Any]:
    """This process's share of the views in batches on its device, with a progress bar."""
    where = machine.global_rank, machine.world_size
    loader = evaluation_loader(views, batch_size, num_workers, *where, collate_fn)
    for batch in tqdm(loader, desc=title, unit="batch", disable=not machine.is_global_zero):
        yield machine.to_device(batch)


def class_of_clusters(map_name: str, metric: UnsupervisedMetrics) -> np.ndarray:
    """The class of each cluster of a map, −1 for none: matched one to one or, in a further cut, named by majority."""
    if CUT_SIGN in map_name:
        return name_by_majority(metric.confusion.cpu().numpy())
    return metric.class_of_cluster()


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
        class_of_cluster = class_of_clusters(map_name, metric)
        for image in evaluation.images:
            ids, file = class_of_cluster[image.ids(map_name)], f"{dataset.name(image.index)}.png"
            write_ids(folder / map_name / "ids" / file, ids, len(palette))
            write_image(folder / map_name / "color" / file, colored(ids, palette))
