"""Trained segmenters beside k-means on the keys they learned from, scored in one go."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from torch.utils.data import DataLoader

from eagle.checkpoints import load_segmenter
from eagle.data.bad_images import readable_part
from eagle.data.catalog import open_dataset
from eagle.data.views import EvaluationViews
from eagle.evaluation.baselines import kmeans_centres
from eagle.evaluation.checkpoint_evaluation import (
    crf_refinement,
    draw_evaluation,
    evaluation_trainer,
    training_config,
    validation_views,
    write_evaluation,
)
from eagle.evaluation.evaluator import evaluate
from eagle.evaluation.inference import KMeansProbe, ProbeMaps, SegmenterProbes
from eagle.evaluation.report import comparison_table, results, write_json

KMEANS = "k-means on K"


def compare(checkpoints: Mapping[str, Path], output_dir: Path, cfg: DictConfig) -> str:
    """Score segmenters of one dataset and k-means on the first one's keys.

    Writes ``metrics.json`` with every score, ``grid.png`` and ``confusion.png`` of the first segmenter, and beside each
    checkpoint the JSON of its evaluation and, with report, its page.

    Args:
        checkpoints: by the name that tables show.
        output_dir: folder for the files.
        cfg: a validated EvalConfig.

    Returns:
        A table of mIoU and accuracy, with and without CRF.

    Raises:
        CheckpointError, ConfigError, DataError: see their one-line messages.
    """
    segmenters = {name: load_segmenter(path) for name, path in checkpoints.items()}
    first = next(iter(segmenters.values()))
    views = validation_views(first, cfg)
    training_set = open_dataset(training_config(first, cfg), "train")
    training = EvaluationViews(readable_part(training_set, cfg.on_bad_image, "training images"), first.cfg.res)
    centres = kmeans_centres(
        first.net.model, DataLoader(training, cfg.batch_size), first.cluster_probe.clusters.shape[0], first.cfg.seed
    )
    probes: dict[str, ProbeMaps] = {KMEANS: KMeansProbe(first.net.model, centres, cfg.cluster_alpha, cfg.window)}
    probes |= {
        name: SegmenterProbes(segmenter, cfg.cluster_alpha, cfg.window) for name, segmenter in segmenters.items()
    }
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
