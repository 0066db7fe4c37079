"""Score the runs of a study: every probe, with and without refinement, and the purity of the cue."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F

from eagle.checkpoints import load_segmenter
from eagle.data.datasets.catalog import open_dataset
from eagle.data.loading.datamodule import SegmentationDataModule
from eagle.evaluation.crf import dense_crf_maps
from eagle.evaluation.cue_purity import cue_purity
from eagle.evaluation.kmeans import fast_kmeans_of, kmeans_of, kmeans_of_codes
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.inference.photograph import CLUSTER_ALPHA
from eagle.inference.probe_maps import log_probabilities
from eagle.models.probes import ClusterLookup, upsampled
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.refinement import spectral_refinement
from eagle.training.caches import open_caches
from eagle.training.resume import LAST_NAME
from eagle.training.run import BEST_NAME

Scores = dict[str, dict[str, float]]
# Codes or keys of a batch → probabilities on the patch grid, by map name.
Probes = Callable[[Tensor], dict[str, Tensor]]


class StudiedModel:
    """A segmenter with its data, and with its key caches if its configuration has them.

    Args:
        segmenter: in eval mode.
    """

    def __init__(self, segmenter: LitUnsupervisedSegmenter) -> None:
        self.cfg = cfg = segmenter.cfg
        self.data = SegmentationDataModule(cfg)
        self.fabric = Fabric(accelerator=cfg.accelerator, devices=1, precision=cfg.precision)
        self.device = self.fabric.device
        self.segmenter = segmenter.eval().to(self.device)
        if cfg.cache_features != "off":
            segmenter.use_key_caches(open_caches(cfg, segmenter.net.model, self.data.train_set, self.data.val_set))

    @torch.no_grad()
    def batches(self) -> Iterator[tuple[Mapping[str, Tensor], Tensor]]:
        """Validation batches with their keys."""
        for batch in self.data.val_dataloader():
            moved = self.data.transfer_batch_to_device(batch, self.device, 0)
            with self.fabric.autocast():
                keys = self.segmenter.validation_keys(moved).float()
            yield moved, keys

    @torch.no_grad()
    def kmeans(self, features: Callable[[Mapping[str, Tensor]], Tensor], full: bool) -> ClusterLookup:
        """Fit k-means to the features of clean training images.

        Args:
            features: a batch → B×C×h×w.
            full: on all channels; else on principal components.
        """
        n_clusters = len(self.segmenter.cluster_probe.clusters)
        with self.fabric.autocast():
            fit = kmeans_of if full else fast_kmeans_of
            centres = kmeans_of_codes(features, self.data.train_set, n_clusters, self.cfg, self.device, fit=fit)
        probe = ClusterLookup(centres.shape[1], n_clusters)
        probe.load_state_dict({"clusters": centres})
        return probe.to(self.device)


def score_run(run_dir: Path, crf: bool, purity: bool) -> dict[str, Any]:
    """Score the last checkpoint of a finished run, and the cluster probe of its best one.

    Validation images are scored as in training: centre crop, no mirrored copy. Maps are named linear, cluster (trained
    centres) and kmeans (centres fitted to the final codes), with +spectral and +crf for refined ones.

    Args:
        run_dir: the run's folder.
        crf: also score maps after the dense CRF.
        purity: also measure the purity of the cue.

    Returns:
        ``scores``, mIoU and accuracy by map; ``best``, mIoU of the cluster probe in the checkpoint that was chosen with
        labels; with ``purity``, that of the cue before and after training.
    """
    model = StudiedModel(load_segmenter(run_dir / LAST_NAME))
    segmenter, cfg = model.segmenter, model.cfg
    refitted = model.kmeans(segmenter.clean_codes, full=False)

    def probes(code: Tensor) -> dict[str, Tensor]:
        return {
            "linear": F.softmax(segmenter.linear_logits(code), dim=1),
            "cluster": F.softmax(CLUSTER_ALPHA * segmenter.cluster_probe.similarity(code), dim=1),
            "kmeans": F.softmax(CLUSTER_ALPHA * refitted.similarity(code), dim=1),
        }

    best = StudiedModel(load_segmenter(run_dir / BEST_NAME))
    best_probe = best.segmenter.cluster_probe
    best_scores = _scores(best, best.segmenter.net, lambda code: {"cluster": best_probe.similarity(code)}, refine=False)
    content: dict[str, Any] = {
        "scores": _scores(model, segmenter.net, probes, refine=True, crf=crf),
        "best": best_scores["cluster"]["mIoU"],
    }
    if purity:
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        untrained = StudiedModel(LitUnsupervisedSegmenter(segmenter.n_classes, cfg))
        content["purity"] = {"start": _purity(untrained), "end": _purity(model)}
    return content


def score_keys(cfg: DictConfig, crf: bool) -> dict[str, Any]:
    """Score k-means of the keys K, from which the runs with this configuration learn; returns ``scores``."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model = StudiedModel(LitUnsupervisedSegmenter(len(open_dataset(cfg, "val").classes), cfg))
    segmenter = model.segmenter
    centres = model.kmeans(segmenter.clean_keys, full=True)

    def probes(keys: Tensor) -> dict[str, Tensor]:
        return {"kmeans": F.softmax(CLUSTER_ALPHA * centres.similarity(keys), dim=1)}

    return {"scores": _scores(model, lambda keys: keys, probes, refine=True, crf=crf)}


@torch.no_grad()
def _scores(
    model: StudiedModel, features: Callable[[Tensor], Tensor], probes: Probes, refine: bool, crf: bool = False
) -> Scores:
    metrics: dict[str, UnsupervisedMetrics] = {}
    for batch, keys in model.batches():
        code = features(keys)
        maps = probes(code)
        if refine:
            maps |= {f"{name}+spectral": spectral_refinement(part, code) for name, part in maps.items()}
        label = batch["label"]
        ids = {name: upsampled(part, (label.shape[1], label.shape[2])).argmax(dim=1) for name, part in maps.items()}
        if crf:
            refined = [name for name in maps if not name.startswith("linear")]
            log_probs = [log_probabilities(maps[name]) for name in refined]
            smooth = dense_crf_maps(batch["img"], log_probs)
            ids |= {f"{name}+crf": part.argmax(dim=1) for name, part in zip(refined, smooth, strict=True)}
        for name, prediction in ids.items():
            metrics.setdefault(name, _metric(model.segmenter, name).to(model.device)).update(prediction, label)
    found = {name: metric.scores(count_extra=False) for name, metric in metrics.items()}
    return {name: {"mIoU": scores.miou, "accuracy": scores.accuracy} for name, scores in found.items()}


def _metric(segmenter: LitUnsupervisedSegmenter, name: str) -> UnsupervisedMetrics:
    if name.startswith("linear"):
        return UnsupervisedMetrics("", segmenter.n_classes, 0, compute_hungarian=False)
    return UnsupervisedMetrics("", segmenter.n_classes, segmenter.cfg.extra_clusters, compute_hungarian=True)


@torch.no_grad()
def _purity(model: StudiedModel) -> dict[str, float]:
    """Mean purity of the cue over validation batches, within images and over each batch, and that of a single label."""
    rows = []
    for batch, keys in model.batches():
        cue = model.segmenter.cues(batch["img"], model.segmenter.net(keys))
        rows.append((*cue_purity(cue, batch["label"]), *cue_purity(torch.zeros_like(cue), batch["label"])))
    means = torch.tensor(rows).nanmean(dim=0).tolist()
    return dict(zip(("within", "over", "within_one_label", "over_one_label"), means, strict=True))
