"""Draw predictions, confusion matrix and class frequencies after each validation."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from eagle.data.datamodule import shard
from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.labels import NO_CLASS, NO_CLASS_NAME, VOID_COLOR, numbered_clusters, write_image
from eagle.distributed import all_reduce_sum
from eagle.evaluation.metrics import match_clusters, score
from eagle.figures.charts import confusion_figure, frequencies_figure
from eagle.figures.drawing import rendered
from eagle.figures.grids import Picture, segmentation_grid
from eagle.files import remove_unfinished
from eagle.segmenter import LitUnsupervisedSegmenter

FOLDER_NAME = "pictures"
_FILE_NAME = re.compile(r"step_(\d+)_(grid|confusion|frequencies)\.png")


class ValidationPictures(pl.Callback):
    """Writes ``step_<steps done>_{grid,confusion,frequencies}.png`` after each validation, and logs the figures.

    Confusion matrix and frequencies count the validation images of all processes. The grid shows the same images of
    rank zero's share every time. Without labels, clusters are shown by number instead of
    class, and the confusion matrix and the linear probe, which is untrained then, are omitted.

    Args:
        folder: folder of the files; only rank zero writes.
        dataset: the validation images.
        n_images: rows of the grid, at least 1.
        kept_interval: steps between validations whose files are kept; the latest validation's always are.
    """

    def __init__(self, folder: Path, dataset: SegmentationDataset, n_images: int, kept_interval: int) -> None:
        self._folder = folder
        self._dataset = dataset
        self._n_images = n_images
        self._kept_interval = kept_interval
        self._shown: set[int] = set()
        self._pictures: list[Picture] = []
        self._cluster_pixels = torch.zeros(0)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset counts and images, also after an interrupted validation."""
        n_clusters = len(cast(LitUnsupervisedSegmenter, pl_module).cluster_probe.clusters)
        self._cluster_pixels = torch.zeros(n_clusters, dtype=torch.int64, device=pl_module.device)
        self._pictures = []
        share = shard(len(self._dataset), trainer.global_rank, trainer.world_size)
        spread = np.linspace(0, len(share) - 1, min(self._n_images, len(share))).astype(int)
        self._shown = {share[i] for i in spread} if trainer.is_global_zero else set()

    def on_validation_batch_end(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, outputs: Any, batch: Mapping[str, Tensor], *_: Any
    ) -> None:
        """Count pixels per cluster and keep the images to draw."""
        self._cluster_pixels += torch.bincount(outputs["cluster"].flatten(), minlength=len(self._cluster_pixels))
        for row, index in enumerate(batch["index"].tolist()):
            if index in self._shown:
                clusters = {name: ids[row].cpu().numpy() for name, ids in outputs.items()}
                img, label = batch["img"][row].float().cpu(), batch["label"][row].cpu().numpy()
                self._pictures.append(Picture(img, label, clusters))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum counts over all processes, draw, and prune; runs before the module resets its metrics."""
        metric = cast(LitUnsupervisedSegmenter, pl_module).cluster_metrics
        with metric.sync_context():
            confusion = metric.confusion.cpu().numpy()
        cluster_pixels = all_reduce_sum(self._cluster_pixels).cpu().numpy()
        if not trainer.is_global_zero:
            return
        when = f"After {trainer.global_step} steps"
        if confusion.any():
            drawn = labelled_validation(when, self._pictures, confusion, self._dataset.classes)
        else:
            drawn = label_free_validation(when, self._pictures, cluster_pixels)
        remove_unfinished(self._folder)
        for name, figure in drawn.items():
            pixels = rendered(figure)
            write_image(self._folder / f"step_{trainer.global_step:08}_{name}.png", pixels)
            # The step under which Lightning logs this validation's scores: the last one done, counted from 0.
            title, step = f"validation/{name}", trainer.global_step - 1
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(title, pixels, step, dataformats="HWC")
                elif isinstance(logger, WandbLogger):
                    logger.log_image(title, [pixels], step)
        for path in self._folder.iterdir():
            found = _FILE_NAME.fullmatch(path.name)
            if found and int(found[1]) % self._kept_interval and int(found[1]) != trainer.global_step:
                path.unlink()


def labelled_validation(
    when: str, pictures: Sequence[Picture], confusion: np.ndarray, classes: Classes
) -> dict[str, Figure]:
    """Draw ``grid``, ``confusion`` and ``frequencies``; clusters are shown as their matched classes.

    Args:
        when: start of the titles.
        pictures: rows of the grid, with the maps "linear" and "cluster".
        confusion: (n + extra)×n counts of the cluster probe, row = cluster, column = label.
        classes: names and palette.
    """
    class_of_cluster = match_clusters(confusion)
    scores = score(confusion[: len(classes)], class_of_cluster[: len(classes)])
    unmatched = confusion.sum(axis=0) - scores.confusion.sum(axis=0) if len(confusion) > len(classes) else None
    others = np.flatnonzero(class_of_cluster == NO_CLASS)
    names = (*classes.names, *(f"cluster {cluster} (no class)" for cluster in others.tolist()))
    colors = np.vstack([classes.palette, *[VOID_COLOR] * len(others)])
    matched = np.argsort(class_of_cluster, kind="stable")[len(others) :]  # the cluster of each class
    predicted = confusion.sum(axis=1)[np.concatenate([matched, others])]
    columns = {"linear": np.arange(len(classes)), "cluster": class_of_cluster}
    title = f"{when}: cluster mIoU {scores.miou:.1f} %, accuracy {scores.accuracy:.1f} %"
    protocol = "" if unmatched is None else f"\nboth without the pixels of {NO_CLASS_NAME}"
    bars = names, colors, predicted, confusion.sum(axis=0)
    return {
        "grid": segmentation_grid(pictures, columns, classes, title=title),
        "confusion": confusion_figure(scores.confusion, classes, title + protocol, unmatched),
        "frequencies": frequencies_figure(*bars, f"{when}: pixels of each class"),
    }


def label_free_validation(when: str, pictures: Sequence[Picture], counts: np.ndarray) -> dict[str, Figure]:
    """Draw ``grid`` and ``frequencies`` of the clusters, each cluster in its own colour.

    Args:
        when: start of the titles.
        pictures: rows of the grid, with the map "cluster".
        counts: number of pixels of each cluster.
    """
    clusters, columns = numbered_clusters(len(counts)), {"cluster": np.arange(len(counts))}
    bars = clusters.names, clusters.palette, counts, counts[:0]
    return {
        "grid": segmentation_grid(pictures, columns, clusters, labelled=False, title=when),
        "frequencies": frequencies_figure(*bars, f"{when}: pixels of each cluster"),
    }
