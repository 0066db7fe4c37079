"""Evaluate checkpoints: tables on the terminal, JSON and pictures beside each file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.utilities import rank_zero_only

from eagle.checkpoints.formats import evaluation_file, probe_entry
from eagle.checkpoints.loading import load_segmenter
from eagle.checkpoints.paths import require_checkpoint
from eagle.config.refinement import refinement
from eagle.config.schema import DatasetConfig
from eagle.config.validation import check_resolution, with_overrides
from eagle.data.check import readable_part
from eagle.data.datasets.base import Classes
from eagle.data.datasets.catalog import dataset_label, open_dataset
from eagle.data.labels import ClassMap
from eagle.data.loading.views import EvaluationViews
from eagle.distributed import machine_arguments, set_float32_precision
from eagle.errors import ConfigError
from eagle.evaluation.crf import dense_crf_maps
from eagle.evaluation.crf_pool import CrfPool
from eagle.evaluation.evaluator import Evaluation, Refine, evaluate
from eagle.evaluation.predictions import PredictionFolder
from eagle.evaluation.score_tables import class_table, comparison_table, results, summary_table, write_json
from eagle.figures.confusion import draw_confusion
from eagle.figures.segmentation_grid import draw_segmentation_grid
from eagle.inference.probe_maps import SegmenterProbes
from eagle.reports.html.page import write_report
from eagle.segmenter import LitUnsupervisedSegmenter


def evaluate_checkpoints(paths: Sequence[Path], cfg: DictConfig) -> None:
    """Run ``evaluate_checkpoint`` on each file and print a table that compares several.

    Raises:
        CheckpointError: a file is missing; checked before the first evaluation.
    """
    for path in paths:
        require_checkpoint(path, "model_paths")
    contents = {str(path): evaluate_checkpoint(path, cfg) for path in paths}
    if len(contents) > 1:
        rank_zero_only(print)(f"\n{comparison_table({path: content['scores'] for path, content in contents.items()})}")


def evaluate_checkpoint(path: Path, cfg: DictConfig) -> dict[str, Any]:
    """Score a checkpoint's probes on its validation split.

    Prints the tables and writes ``<name>_eval.json``, ``<name>_grid.png`` and ``<name>_confusion.png`` beside the
    checkpoint; with ``report`` also ``<name>_report.html``, with ``run_prediction`` also ``<name>_predictions/``.

    Args:
        path: the checkpoint.
        cfg: a validated EvalConfig.

    Returns:
        The JSON's content.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ConfigError, DataError: as in ``validation_views``.
    """
    segmenter = load_segmenter(path)
    views = validation_views(segmenter, cfg)
    dataset = views.dataset
    predictions = PredictionFolder(path.with_name(f"{path.stem}_predictions"), dataset) if cfg.run_prediction else None
    with crf_refinement(cfg) as refine:
        evaluation = evaluate(
            evaluation_trainer(cfg),
            SegmenterProbes(segmenter, cfg.cluster_alpha, cfg.window, refinement(cfg).spectral),
            views,
            cfg.batch_size,
            cfg.num_workers,
            refine,
            cfg.n_images,
            predictions,
            cfg.report,
        )
    content = write_evaluation(path, segmenter, views, evaluation, cfg)
    scores = content["scores"]
    extent = f"{views.res}×{views.res}" if views.crop else f"short side {views.res}, whole"
    left_out = f" ({len(dataset.skipped)} bad ones left out)" if dataset.skipped else ""
    lines = [f"\n{path}: {content['dataset']}, {len(dataset)} images{left_out}, {extent}\n"]
    if segmenter.training_record:
        lines += [", ".join(f"{name} {value}" for name, value in segmenter.training_record.items()) + "\n"]
    lines += [f"{class_table(scores, dataset.classes)}\n\n{summary_table(scores)}"]
    if predictions is not None:
        lines += [f"\npredictions: {predictions.root}"]
    if cfg.report:
        lines += [f"\nreport: {report_file(path)}"]
    rank_zero_only(print)("\n".join(lines))
    draw_evaluation(evaluation, dataset.classes, path.parent, f"{path.stem}_")
    return content


def report_file(path: Path) -> Path:
    """Path of a checkpoint's HTML report."""
    return path.with_name(f"{path.stem}_report.html")


def write_evaluation(
    path: Path, segmenter: LitUnsupervisedSegmenter, views: EvaluationViews, evaluation: Evaluation, cfg: DictConfig
) -> dict[str, Any]:
    """Write ``<name>_eval.json`` and, with ``report``, ``<name>_report.html`` beside a checkpoint.

    Returns:
        The JSON's content: scores, evaluation settings and the class of each cluster.
    """
    metrics, classes = evaluation.metrics, views.dataset.classes
    assignments = {name: metric.class_of_cluster().tolist() for name, metric in metrics.items()}
    content = {
        "checkpoint": str(path),
        **probe_entry(segmenter.state_dict()),
        "training": segmenter.training_record,
        "dataset": dataset_label(segmenter.cfg),
        "images": len(views),
        "skipped_images": list(views.dataset.skipped),
        "res": views.res,
        "crop": views.crop,
        "window": cfg.window,
        "cluster_alpha": cfg.cluster_alpha,
        "scores": results(metrics, classes),
        "class_map": ClassMap(classes, assignments).to_plain(),
    }
    write_json(evaluation_file(path), content)
    if cfg.report:
        configurations = {"Evaluation": OmegaConf.to_yaml(cfg), "Training": OmegaConf.to_yaml(segmenter.cfg)}
        write_report(report_file(path), content, evaluation, views, configurations)
    return content


@rank_zero_only
def draw_evaluation(evaluation: Evaluation, classes: Classes, folder: Path, prefix: str = "") -> None:
    """Write ``<prefix>grid.png``, and ``<prefix>confusion.png`` for the last map, which is the most refined one."""
    metrics = evaluation.metrics
    last = list(metrics)[-1]
    scores = metrics[last].scores(count_extra=False)
    draw_confusion(folder / f"{prefix}confusion.png", scores.confusion, classes, f"{last}: {scores.miou:.1f} mIoU")
    if evaluation.pictures:
        columns = {name: metric.class_of_cluster() for name, metric in metrics.items()}
        draw_segmentation_grid(folder / f"{prefix}grid.png", evaluation.pictures, columns, classes)


def training_config(segmenter: LitUnsupervisedSegmenter, cfg: Any) -> DictConfig:
    """The segmenter's configuration with ``pytorch_data_dir`` replaced by the folder to evaluate on.

    The evaluation's key comes first, then the training folder if it exists, then the default folder. Released
    checkpoints name a folder on the authors' machine.
    """
    data_dir = cfg.pytorch_data_dir
    if data_dir is None and not Path(segmenter.cfg.pytorch_data_dir).is_dir():
        data_dir = DatasetConfig.pytorch_data_dir
    return segmenter.cfg if data_dir is None else with_overrides(segmenter.cfg, pytorch_data_dir=data_dir)


def validation_views(segmenter: LitUnsupervisedSegmenter, cfg: Any) -> EvaluationViews:
    """The validation split of the segmenter's dataset, at the evaluation's resolution.

    Raises:
        ConfigError: ``res`` or ``window`` is not a multiple of the patch size, or the number of classes differs.
        DataError: files are missing.
    """
    res = cfg.res or segmenter.cfg.val_res
    for name, size in (("res", res), ("window", cfg.window or res)):
        check_resolution(name, size, segmenter.net.model.patch_size)
    source = training_config(segmenter, cfg)
    dataset = open_dataset(source, "val")
    if len(dataset.classes) != segmenter.n_classes:
        raise ConfigError(
            f"pytorch_data_dir: {dataset_label(source)} in this folder has {len(dataset.classes)} classes, "
            f"the checkpoint {segmenter.n_classes}"
        )
    return EvaluationViews(readable_part(dataset, cfg.on_bad_image, "validation images"), res, cfg.crop)


def evaluation_trainer(cfg: Any) -> pl.Trainer:
    """A Trainer for evaluation, which writes no logs and no checkpoints; sets ``matmul_precision`` for the process."""
    set_float32_precision(cfg.matmul_precision)
    # Named, because Lightning draws another bar where rich happens to be installed.
    return pl.Trainer(
        **machine_arguments(cfg),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[TQDMProgressBar()],
    )


@contextmanager
def crf_refinement(cfg: Any) -> Iterator[Refine | None]:
    """Yield the dense CRF with its pool of processes, or None if the configuration asks for none."""
    if not refinement(cfg).crf:
        yield None
        return
    with CrfPool(cfg.crf_processes) as pool:
        yield lambda img, maps: dense_crf_maps(img, maps, cfg.crf_backend, pool)
