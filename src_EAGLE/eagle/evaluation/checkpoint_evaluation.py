"""Evaluate one checkpoint: tables on the terminal, JSON and pictures beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from eagle.checkpoints import load_segmenter
from eagle.data.catalog import open_dataset
from eagle.data.views import EvaluationViews
from eagle.evaluation.crf import dense_crf_maps
from eagle.evaluation.crf_pool import CrfPool
from eagle.evaluation.evaluator import Refine, evaluate
from eagle.evaluation.inference import SegmenterProbes
from eagle.evaluation.report import class_table, results, summary_table, write_json
from eagle.plots.confusion import draw_confusion
from eagle.plots.segmentation_grid import draw_segmentation_grid
from eagle.training import check_resolution, machine_arguments, with_overrides


def evaluate_checkpoint(path: Path, cfg: DictConfig) -> dict[str, Any]:
    """Score a checkpoint's probes on its validation split.

    Prints the tables and writes ``<name>_eval.json``, ``<name>_grid.png`` and ``<name>_confusion.png`` beside the
    checkpoint.

    Args:
        path: the checkpoint.
        cfg: a validated EvalConfig.

    Returns:
        The JSON's content.

    Raises:
        CheckpointError, ConfigError, DataError: see their one-line messages.
    """
    segmenter = load_segmenter(path)
    res = cfg.res or segmenter.cfg.val_res
    check_resolution("res", res, segmenter.net.model.patch_size)
    source = segmenter.cfg
    if cfg.pytorch_data_dir is not None:
        source = with_overrides(source, pytorch_data_dir=cfg.pytorch_data_dir)
    dataset = open_dataset(source, "val")
    n_clusters = {"linear": segmenter.n_classes, "cluster": segmenter.n_classes + source.extra_clusters}
    with crf_refinement(cfg) as refine:
        evaluation = evaluate(
            evaluation_trainer(cfg),
            SegmenterProbes(segmenter, cfg.cluster_alpha),
            n_clusters,
            EvaluationViews(dataset, res),
            cfg.batch_size,
            cfg.num_workers,
            refine,
            cfg.n_images,
        )
    scores = results(evaluation.metrics, dataset.classes)
    content = {
        "checkpoint": str(path),
        "dataset": source.dir_dataset_name or source.dataset_name,
        "images": len(dataset),
        "res": res,
        "cluster_alpha": cfg.cluster_alpha,
        "scores": scores,
    }
    print(f"\n{path}: {content['dataset']}, {len(dataset)} images at {res}×{res}\n")
    print(f"{class_table(scores, dataset.classes)}\n\n{summary_table(scores)}")
    write_json(path.with_name(f"{path.stem}_eval.json"), content)
    best = "cluster+crf" if cfg.run_crf else "cluster"
    draw_confusion(
        path.with_name(f"{path.stem}_confusion.png"),
        evaluation.metrics[best].scores(count_extra=False).confusion,
        dataset.classes,
        f"{best}: {scores[best]['published']['mIoU']:.1f} mIoU",
    )
    if evaluation.pictures:
        columns = {name: metric.class_of_cluster() for name, metric in evaluation.metrics.items()}
        draw_segmentation_grid(path.with_name(f"{path.stem}_grid.png"), evaluation.pictures, columns, dataset.classes)
    return content


def evaluation_trainer(cfg: Any) -> pl.Trainer:
    """A Trainer that only walks a loader and leaves nothing behind."""
    return pl.Trainer(**machine_arguments(cfg), logger=False, enable_checkpointing=False, enable_model_summary=False)


@contextmanager
def crf_refinement(cfg: Any) -> Iterator[Refine | None]:
    """The dense CRF that run_crf, crf_backend and crf_processes ask for, while its processes live; None for none."""
    if not cfg.run_crf:
        yield None
        return
    with CrfPool(cfg.crf_processes) as pool:
        yield lambda img, maps: dense_crf_maps(img, maps, cfg.crf_backend, pool)
