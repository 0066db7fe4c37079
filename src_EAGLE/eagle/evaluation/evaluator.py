"""Score probe maps on a labelled dataset, with and without CRF, on whatever device Lightning is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from eagle.data.loading.datamodule import batches_by_shape, evaluation_loader
from eagle.data.loading.views import EvaluationViews
from eagle.distributed import all_gather_objects
from eagle.errors import DataError
from eagle.evaluation.details import Details
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.evaluation.picture import Picture
from eagle.evaluation.predictions import PredictionFolder

CRF_SUFFIX = "+crf"

Refine = Callable[[Tensor, Sequence[Tensor]], list[Tensor]]


class ProbeMaps(Protocol):
    """Anything that maps images to named log-probabilities at their own size.

    Attributes:
        n_clusters: channels of each map, by name.
    """

    n_clusters: dict[str, int]

    def __call__(self, img: Tensor) -> dict[str, Tensor]:
        """B×3×H×W normalised image → B×C×H×W log-probabilities by name."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics by map name (a name with ``+crf`` is the refined map), some pictures, and what the report shows."""

    metrics: dict[str, UnsupervisedMetrics]
    pictures: list[Picture]
    details: Details | None = None


class Evaluator(pl.LightningModule):
    """Accumulates a confusion matrix for each map while Lightning's Trainer walks the loader.

    Args:
        probes: see ProbeMaps; the map "linear" is read as classes, others are matched.
        n_classes: classes of the labels.
        refine: the dense CRF, to score refined maps too; None scores the plain ones only.
        shown: indices of the images kept as pictures.
        predictions: where to write every image's clusters; None for nowhere.
        detailed: keep Details of the last map, i.e. the most refined one.
    """

    def __init__(
        self,
        probes: ProbeMaps,
        n_classes: int,
        refine: Refine | None,
        shown: set[int],
        predictions: PredictionFolder | None,
        detailed: bool = False,
    ) -> None:
        super().__init__()
        self.probes: ProbeMaps = probes  # a module, so that Lightning moves it to the device
        self.refine = refine
        self.shown = shown
        self.predictions = predictions
        self.pictures: list[Picture] = []
        suffixes = ("", CRF_SUFFIX) if refine else ("",)
        self.names = [name + suffix for suffix in suffixes for name in probes.n_clusters]
        self.metrics = nn.ModuleList(
            UnsupervisedMetrics("", n_classes, n - n_classes, compute_hungarian=name != "linear")
            for _ in suffixes
            for name, n in probes.n_clusters.items()
        )
        n_clusters = list(probes.n_clusters.values())[-1]
        self.details = Details(self.names[-1], n_clusters, n_classes) if detailed else None

    def test_step(self, batches: list[Mapping[str, Tensor]], batch_idx: int) -> None:  # noqa: ARG002
        """Score images, one batch for each shape of them."""
        for batch in batches:
            maps = self._maps(batch["img"])
            clusters = {name: scores.argmax(dim=1) for name, scores in maps.items()}
            for name, metric in zip(self.names, self.metrics, strict=True):
                cast(UnsupervisedMetrics, metric).update(clusters[name], batch["label"])
            self._keep(batch, {name: ids.cpu().numpy() for name, ids in clusters.items()})
            if self.details is not None:
                self._note(batch, maps[self.details.map_name], clusters[self.details.map_name])

    def _maps(self, img: Tensor) -> dict[str, Tensor]:
        """Every map, B×C×H×W: log-probabilities of the plain ones, probabilities of the refined ones."""
        maps = self.probes(img)
        if self.refine is not None:
            refined = self.refine(img, list(maps.values()))
            maps |= {name + CRF_SUFFIX: probs for name, probs in zip(maps, refined, strict=True)}
        return maps

    def _keep(self, batch: Mapping[str, Tensor], clusters: Mapping[str, np.ndarray]) -> None:
        """Write predictions and collect pictures."""
        for row, index in enumerate(batch["index"].tolist()):
            ids = {name: of_batch[row] for name, of_batch in clusters.items()}
            if self.predictions is not None:
                for name, of_image in ids.items():
                    self.predictions.write(name, index, of_image)
            if index in self.shown:
                label = batch["label"][row].cpu().numpy()
                self.pictures.append(Picture(index, batch["img"][row].float().cpu(), label, ids))

    def _note(self, batch: Mapping[str, Tensor], scores: Tensor, clusters: Tensor) -> None:
        """Add a batch to the details."""
        assert self.details is not None
        chosen = scores.gather(1, clusters[:, None]).squeeze(1).float()
        confidence = chosen if self.refine else chosen.exp()
        arrays = (part.cpu().numpy() for part in (clusters, confidence, batch["label"]))
        for index, *of_image in zip(batch["index"].tolist(), *arrays, strict=True):
            self.details.update(index, *of_image)

    def on_test_epoch_end(self) -> None:
        """Gather the counts, pictures and details of all devices; they have written their predictions by then."""
        for metric in self.metrics:
            cast(UnsupervisedMetrics, metric).sync()
        self.pictures = sorted(all_gather_objects(self.pictures), key=lambda picture: picture.index)
        if self.details is not None:
            self.details.sync()


def evaluate(
    trainer: pl.Trainer,
    probes: ProbeMaps,
    views: EvaluationViews,
    batch_size: int,
    num_workers: int,
    refine: Refine | None,
    n_pictures: int,
    predictions: PredictionFolder | None = None,
    detailed: bool = False,
) -> Evaluation:
    """Walk a labelled dataset once and score every map.

    Args:
        trainer: decides device and precision.
        probes: see ProbeMaps.
        views: the images.
        batch_size: images per batch; does not change the result.
        num_workers: loader processes.
        refine: the dense CRF, to score refined maps too.
        n_pictures: evenly spread images kept for figures.
        predictions: where to write every image's prediction; None for nowhere.
        detailed: keep Details of the last map.

    Raises:
        DataError: the dataset has no labels, or void ones only.
    """
    if not views.dataset.has_labels:
        raise DataError("the dataset has no labels to score against")
    spread = np.linspace(0, len(views) - 1, min(n_pictures, len(views))).astype(int)
    evaluator = Evaluator(probes, len(views.dataset.classes), refine, set(spread.tolist()), predictions, detailed)
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
    return Evaluation(metrics, evaluator.pictures, evaluator.details)
