"""Fit the cluster probe of a finished checkpoint to the regions of its training images, without labels."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from eagle.checkpoints.formats import read_stored, require_known_suffix, write_stored
from eagle.checkpoints.loading import build_segmenter
from eagle.config.validation import with_overrides
from eagle.data.class_map import ClassMap
from eagle.data.datasets.catalog import open_dataset
from eagle.errors import CheckpointError
from eagle.evaluation.kmeans import kmeans_of_images
from eagle.reports.checkpoint_evaluation import training_config
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.regions import region_means


def fit_cluster_probe(source: Path, target: Path, cfg: Any) -> None:
    """Write a checkpoint whose cluster probe is k-means of region means; nothing else changes.

    Args:
        source: a checkpoint of either format, released or ours.
        target: another file, ``NAME.ckpt`` or ``NAME.safetensors``.
        cfg: has seed, batch_size, num_workers, on_bad_image, accelerator, precision and pytorch_data_dir.

    Raises:
        CheckpointError: the source cannot be loaded, or the target is the source or has another suffix.
        ConfigError, DataError: the training images are missing, unreadable, or too few for that many clusters.
    """
    require_known_suffix(target)
    if target.resolve() == source.resolve() or (target.exists() and target.samefile(source)):
        raise CheckpointError(f"output: {target} is the checkpoint to read; give another name")
    stored = read_stored(source)
    segmenter = build_segmenter(stored, source).eval()
    overrides = {name: cfg[name] for name in ("seed", "batch_size", "num_workers", "on_bad_image")}
    run = with_overrides(training_config(segmenter, cfg), **overrides)
    fabric = Fabric(accelerator=cfg.accelerator, devices=1, precision=cfg.precision)
    segmenter.to(fabric.device)
    probe = segmenter.cluster_probe
    with fabric.autocast():
        centres = kmeans_of_images(
            lambda batch: region_vectors(segmenter, batch),
            open_dataset(run, "train"),
            len(probe.clusters),
            run,
            fabric.device,
        )
    probe.point_at(centres)
    tensors = {name: tensor.cpu() for name, tensor in segmenter.state_dict().items()}
    class_map = stored.class_map and _of_linear_probe(stored.class_map)
    write_stored(replace(stored, cfg=dict(segmenter.hparams["cfg"]), tensors=tensors, class_map=class_map), target)


@torch.no_grad()
def region_vectors(segmenter: LitUnsupervisedSegmenter, batch: Mapping[str, Tensor]) -> list[np.ndarray]:
    """Mean codes of each image's EiCue regions, n×D float32.

    Args:
        segmenter: in any mode; codes have no dropout.
        batch: ``img``, B×3×H×W; optional ``index`` for the key cache.
    """
    code = segmenter.clean_codes(batch)
    return [means.cpu().numpy() for means in region_means(code, segmenter.cues(batch["img"], code))]


def _of_linear_probe(class_map: ClassMap) -> ClassMap:
    """The class map without the old clusters' classes."""
    linear = {name: classes for name, classes in class_map.assignments.items() if name.startswith("linear")}
    return ClassMap(class_map.classes, linear)
