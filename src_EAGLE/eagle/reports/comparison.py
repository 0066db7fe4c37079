"""Score trained segmenters and k-means on the keys they learned from."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from eagle.checkpoints.loading import load_segmenter
from eagle.config.refinement import refinement
from eagle.data.check import readable_part
from eagle.data.datasets.catalog import open_dataset
from eagle.data.loading.views import EvaluationViews
from eagle.evaluation.evaluator import ProbeMaps, evaluate
from eagle.evaluation.score_tables import comparison_table, results, write_json
from eagle.inference.probe_maps import KMeansProbe, SegmenterProbes
from eagle.models.probes import ClusterLookup
from eagle.reports.baselines import kmeans_centres, sampled_images
from eagle.reports.checkpoint_evaluation import (
    crf_refinement,
    draw_evaluation,
    evaluation_trainer,
    training_config,
    validation_views,
    write_evaluation,
)
from eagle.segmenter import LitUnsupervisedSegmenter

KMEANS = "k-means on K"


def compare(checkpoints: Mapping[str, Path], output_dir: Path, cfg: DictConfig) -> str:
    """Score segmenters of one dataset and k-means on the first segmenter's keys.

    Writes ``metrics.json`` with every score, and ``grid.png`` and ``confusion.png`` of the first segmenter. Writes each
    checkpoint's ``<name>_eval.json`` and, with ``report``, ``<name>_report.html`` beside it.

    Args:
        checkpoints: files by the name shown in tables.
        output_dir: folder for the files.
        cfg: a validated EvalConfig.

    Returns:
        A table of mIoU and accuracy, without and with refinement.

    Raises:
        CheckpointError: a checkpoint cannot be loaded.
        ConfigError, DataError: as in ``validation_views``.
    """
    segmenters = {name: load_segmenter(path) for name, path in checkpoints.items()}
    first = next(iter(segmenters.values()))
    views = validation_views(first, cfg)
    centres = _centres(first, cfg)
    settings = (cfg.cluster_alpha, cfg.window, refinement(cfg).spectral)
    probes: dict[str, ProbeMaps] = {KMEANS: KMeansProbe(first.net.model, centres, *settings)}
    probes |= {name: SegmenterProbes(segmenter, *settings) for name, segmenter in segmenters.items()}
    with crf_refinement(cfg) as refine:
        evaluations = {
            name: evaluate(
                evaluation_trainer(cfg),
                maps,
                views,
                cfg.batch_size,
                cfg.num_workers,
                refine,
                cfg.n_images,
                detailed=cfg.report and name in segmenters,
            )
            for name, maps in probes.items()
        }
    for name, path in checkpoints.items():
        write_evaluation(path, segmenters[name], views, evaluations[name], cfg)
    classes = views.dataset.classes
    report = {name: results(evaluation.metrics, classes) for name, evaluation in evaluations.items()}
    skipped = {"skipped_images": list(views.dataset.skipped)} if views.dataset.skipped else {}
    write_json(output_dir / "metrics.json", {**report, **skipped})
    draw_evaluation(evaluations[next(iter(segmenters))], classes, output_dir)
    return comparison_table(report)


def _centres(segmenter: LitUnsupervisedSegmenter, cfg: DictConfig) -> ClusterLookup:
    """k-means centres of the training images' keys, as many as the cluster probe has clusters."""
    seed = segmenter.cfg.seed
    images = sampled_images(open_dataset(training_config(segmenter, cfg), "train"), seed)
    views = EvaluationViews(readable_part(images, cfg.on_bad_image, "training images"), segmenter.cfg.res)
    return kmeans_centres(
        evaluation_trainer(cfg),
        segmenter.net.model,
        views,
        len(segmenter.cluster_probe.clusters),
        seed,
        cfg.batch_size,
        cfg.num_workers,
    )
