"""Evaluate checkpoints and k-means on their keys: tables on the terminal, JSON and pictures beside each file."""

import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from eagle.checkpoints import dataset_config, evaluation_file, load_segmenter, probe_entry
from eagle.config.refinement import refinement
from eagle.config.validation import check_resolution, complete_config, plain
from eagle.console import code_version
from eagle.data.check import readable_part
from eagle.data.datasets.catalog import dataset_label, open_dataset
from eagle.data.labels import ClassMap
from eagle.data.views import EvaluationViews
from eagle.distributed import machine_arguments, named_devices, set_float32_precision
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import ConfigError, EagleError
from eagle.evaluation import tables
from eagle.evaluation.evaluator import Evaluation, class_of_clusters, evaluate, most_refined, write_predictions
from eagle.evaluation.kmeans import kmeans_centres, sampled_images
from eagle.evaluation.report import write_report
from eagle.figures.charts import confusion_figure, runs_figure, trees_figure
from eagle.figures.drawing import write_figure
from eagle.figures.grids import Picture, segmentation_grid
from eagle.files import write_csv_atomically
from eagle.maps.probe_maps import MapSettings, ProbeMaps, without_cuts
from eagle.models.key_cache import KeyMemory, weights_digest
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training.caches import available_memory

# Cuts of a tree that are scored as well, as multiples of the number of classes.
FURTHER_CUTS = (2, 3, 4)

logger = logging.getLogger(__name__)


def evaluate_checkpoints(paths: Sequence[Path], cfg: DictConfig) -> None:
    """Run ``evaluate_checkpoint`` on each file; of several, print tables over runs and write them and a figure.

    Of several files, those whose evaluation is there with the same weights and settings are not scored again. In
    ``output_dir`` their results lie as the files do in the folder that they share.

    Raises:
        CheckpointError: a file is missing; checked before the first evaluation.
    """
    for path in paths:
        require_checkpoint(path, "model_paths")
    if len(paths) == 1:
        evaluate_checkpoint(paths[0], cfg)
        return
    shared = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    folder, contents, memory = Path(cfg.output_dir or shared), {}, KeyMemory(available_memory() // 2)
    kmeans: dict[Any, dict[str, Any]] = {}
    require_writable(folder)
    for number, path in enumerate(paths, 1):
        place = folder / path.resolve().relative_to(shared) if cfg.output_dir else path
        stored = tables.stored_evaluation(path, cfg, place)
        if stored and stored.get("data") != _data_digest(stored, cfg):
            stored = None
        done = f", scored before: delete {evaluation_file(place)} to score it again" if stored else ""
        rank_zero_only(logger.info)("%d of %d: %s%s", number, len(paths), path, done)
        contents[str(path)] = stored or evaluate_checkpoint(path, cfg, place, memory, kmeans)
    rank_zero_only(lambda: print(f"\n{runs_report(contents, folder)}"))()


def runs_report(contents: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """Write ``runs.csv``, ``runs.json``, ``runs.png`` and, with trees, ``runs_tree.png``; return the tables.

    Args:
        contents: by checkpoint, what ``evaluate_checkpoint`` returns, with the training configuration as ``config``
            and, with the key ``kmeans``, the scores of k-means on the same keys.
        folder: for the files.
    """
    runs = tables.collect(contents)
    keys = list(dict.fromkeys(key for run in runs for key in run.setting))
    rows = [
        [run.dataset, *(run.setting[key] or "yes" if key in run.setting else "" for key in keys), str(run.seed), name]
        + ["" if value is None else repr(value) for value in scores.values()]
        for run in runs
        for name, scores in run.scores.items()
    ]
    files = [folder / "runs.csv", folder / "runs.json"]
    write_csv_atomically(files[0], ["dataset", *keys, tables.SEED, "map", *tables.COLUMNS], rows)
    found = [{"dataset": run.dataset, "setting": run.setting, "seed": run.seed, "scores": run.scores} for run in runs]
    tables.write_json(files[1], {"command": sys.argv, "code": code_version(), "runs": found})
    for name, figure in (("runs.png", runs_figure(runs)), ("runs_tree.png", trees_figure(runs))):
        if figure is not None:
            files.append(folder / name)
            write_figure(files[-1], figure)
    parts = [[run for run in runs if run.dataset == dataset] for dataset in dict.fromkeys(run.dataset for run in runs)]
    printed = [table(part) for part in parts for table in (tables.scores_table, tables.differences_table)]
    return "\n\n".join([*filter(None, printed), "\n".join(map(str, files))])


def _data_digest(stored: Mapping[str, Any], cfg: DictConfig) -> str | None:
    """The digest of the validation files that an evaluation would read; the stored one where there are none."""
    try:
        source = dataset_config(complete_config(stored["config"]), cfg.pytorch_data_dir)
        return open_dataset(source, "val").files_digest()
    except (EagleError, OSError):
        return stored.get("data")


def require_writable(folder: Path) -> None:
    """Create a folder; raise OSError or ConfigError, before the work, if files cannot be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"output_dir: {folder} is not writable; name another folder")


def evaluate_checkpoint(
    path: Path,
    cfg: DictConfig,
    place: Path | None = None,
    memory: KeyMemory | None = None,
    kmeans: dict[Any, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Score a checkpoint's probes on its validation split, and with ``kmeans`` k-means on its keys.

    Prints the tables and writes ``<name>_eval.json``, ``<name>_grid.png`` and ``<name>_confusion.png`` to
    ``output_dir``, or beside the checkpoint; with ``report`` also ``<name>_report.html``, with ``run_prediction`` also
    ``<name>_predictions/``.

    Args:
        path: the checkpoint.
        cfg: a validated EvalConfig.
        place: where the checkpoint would lie beside these files; None to follow ``output_dir``.
        memory: keeps keys for further checkpoints.
        kmeans: scores of k-means that further checkpoints of the same data, keys and seed share; filled here.

    Returns:
        The JSON's content.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ConfigError, DataError: as in ``validation_views``, and if the files cannot be written.
    """
    place = place or Path(cfg.output_dir or path.parent) / path.name
    require_writable(place.parent)
    segmenter = load_segmenter(path)
    if memory:
        memory.attach(segmenter.net.model)
    views = validation_views(segmenter, cfg)
    dataset = views.dataset
    maps = segmenter.probe_maps(map_settings(cfg), cfg.n_clusters, _further_cuts(segmenter, cfg))
    shown = np.linspace(0, len(views) - 1, min(cfg.n_images, len(views))).astype(int).tolist()
    kept = [*maps.n_clusters] if cfg.run_prediction else [most_refined([*maps.n_clusters])] if cfg.report else []
    machine = evaluation_machine(cfg)
    baseline: dict[str, Any] = {}
    if cfg.kmeans:  # first, because it needs training images, which may not be there
        baseline = _kmeans_scores(machine, segmenter, views, cfg, {} if kmeans is None else kmeans)
    evaluation = evaluate(machine, maps, views, cfg.batch_size, cfg.num_workers, shown, kept)
    content = evaluation_content(path, segmenter, views, evaluation, cfg)
    if cfg.kmeans:
        content["kmeans"] = baseline
    scores = content["scores"]
    baseline = {name.replace("cluster", tables.KMEANS): entry for name, entry in baseline.items()}
    extent = f"{views.res}×{views.res}" if views.crop else f"short side {views.res}, whole"
    left_out = f" ({len(dataset.skipped)} bad ones left out)" if dataset.skipped else ""
    lines = [f"\n{path}: {content['dataset']}, {len(dataset)} images{left_out}, {extent}\n"]
    if segmenter.training_record:
        lines += [", ".join(f"{name} {value}" for name, value in segmenter.training_record.items()) + "\n"]
    lines += [f"{tables.class_table(scores, dataset.classes)}\n\n{tables.summary_table({**baseline, **scores})}"]
    if cuts := tables.cuts_table(scores):
        lines += [
            f"\nThe tree of clusters, cut at other numbers. Many to one: named by the class most pixels have.\n\n{cuts}"
        ]
    rank_zero_only(print)("\n".join(lines), flush=True)  # before files are written, which a full disk may prevent
    if cfg.run_prediction:
        predictions = place.with_name(f"{path.stem}_predictions")
        write_predictions(predictions, evaluation, dataset)
        rank_zero_only(print)(f"\npredictions: {predictions}")
    tables.write_json(evaluation_file(place), content)
    if cfg.report:
        report = place.with_name(f"{path.stem}_report.html")
        configurations = {"Evaluation": OmegaConf.to_yaml(cfg), "Training": OmegaConf.to_yaml(segmenter.cfg)}
        write_report(report, {**content, "code": code_version()}, evaluation, views, configurations)
        rank_zero_only(print)(f"\nreport: {report}")
    draw_evaluation(evaluation, views, shown, place)
    return content


def evaluation_content(
    path: Path, segmenter: LitUnsupervisedSegmenter, views: EvaluationViews, evaluation: Evaluation, cfg: DictConfig
) -> dict[str, Any]:
    """Content of ``<name>_eval.json``: scores, evaluation settings and the class of each cluster."""
    metrics, classes = evaluation.metrics, views.dataset.classes
    assignments = {name: class_of_clusters(name, metric).tolist() for name, metric in metrics.items()}
    return {
        "checkpoint": str(path),
        **probe_entry(segmenter.state_dict()),
        **tables.evaluation_record(path, cfg),
        "files": tables.asked_files(cfg),
        "config": plain(segmenter.cfg),
        "training": segmenter.training_record,
        "dataset": dataset_label(segmenter.cfg),
        "images": len(views),
        "data": views.dataset.files_digest(),
        "skipped_images": list(views.dataset.skipped),
        "res": views.res,
        "crop": views.crop,
        "flip": cfg.flip,
        "window": cfg.window,
        "n_clusters": cfg.n_clusters,
        "cluster_alpha": cfg.cluster_alpha,
        "scores": tables.results(metrics, classes),
        "class_map": ClassMap(classes, assignments).to_plain(),
    }


@rank_zero_only
def draw_evaluation(evaluation: Evaluation, views: EvaluationViews, shown: Collection[int], place: Path) -> None:
    """Write ``<name>_grid.png``, and ``<name>_confusion.png`` of the most refined map, beside ``place``."""
    metrics, classes = evaluation.metrics, views.dataset.classes
    last = most_refined(list(metrics))
    scores = metrics[last].scores(count_extra=False)
    confusion = confusion_figure(scores.confusion, classes, f"{last}: {scores.miou:.1f} mIoU")
    write_figure(place.with_name(f"{place.stem}_confusion.png"), confusion)
    if shown:
        columns = {name: metrics[name].class_of_cluster() for name in without_cuts(metrics)}
        pictures = [
            Picture(views[image.index]["img"], image.ids("label"), {n: image.ids(n) for n in columns})
            for image in evaluation.images
            if image.index in shown
        ]
        write_figure(place.with_name(f"{place.stem}_grid.png"), segmentation_grid(pictures, columns, classes))


def validation_views(segmenter: LitUnsupervisedSegmenter, cfg: Any) -> EvaluationViews:
    """The validation split of the segmenter's dataset, at the evaluation's resolution.

    Raises:
        ConfigError: ``res`` or ``window`` is not a multiple of the patch size, or the number of classes differs.
        DataError: files are missing.
    """
    res = cfg.res or segmenter.cfg.val_res
    for name, size in (("res", res), ("window", cfg.window or res)):
        check_resolution(name, size, segmenter.net.model.patch_size)
    source = dataset_config(segmenter.cfg, cfg.pytorch_data_dir)
    dataset = open_dataset(source, "val")
    if len(dataset.classes) != segmenter.n_classes:
        raise ConfigError(
            f"pytorch_data_dir: {dataset_label(source)} in this folder has {len(dataset.classes)} classes, "
            f"the checkpoint {segmenter.n_classes}"
        )
    return EvaluationViews(readable_part(dataset, cfg.on_bad_image, "validation images"), res, cfg.crop)


def evaluation_machine(cfg: Any) -> Fabric:
    """Start the processes of an evaluation, and set ``matmul_precision`` for each."""
    set_float32_precision(cfg.matmul_precision)
    with named_devices(cfg):
        machine = Fabric(**machine_arguments(cfg))
    machine.launch()
    return machine


def _further_cuts(segmenter: LitUnsupervisedSegmenter, cfg: Any) -> list[int]:
    """Twice, three and four times the number of classes, where the segmenter has a tree of so many leaves."""
    tree = segmenter.cluster_tree
    if tree is None or cfg.n_clusters is not None:
        return []
    return [n for n in (factor * segmenter.n_classes for factor in FURTHER_CUTS) if n <= tree.n_leaves]


def map_settings(cfg: Any) -> MapSettings:
    """The keys of an evaluation that say how maps are computed."""
    return MapSettings(cfg.cluster_alpha, cfg.window, cfg.flip, refinement(cfg), cfg.crf_backend)


def _kmeans_scores(
    machine: Fabric,
    segmenter: LitUnsupervisedSegmenter,
    views: EvaluationViews,
    cfg: Any,
    known: dict[Any, dict[str, Any]],
) -> dict[str, Any]:
    """Scores of k-means on the training images' keys, with as many centres as the cluster probe has."""
    source, backbone = dataset_config(segmenter.cfg, cfg.pytorch_data_dir), segmenter.net.model
    n_clusters, seed, res = len(segmenter.cluster_probe.clusters), source.seed, source.res
    crops = source.crop_type, source.crop_ratio
    inputs = dataset_label(source), source.pytorch_data_dir, *crops, source.potsdam_unlabelled
    key = *inputs, n_clusters, seed, res, views.res, weights_digest(backbone)
    if key not in known:
        images = sampled_images(open_dataset(source, "train"), seed)
        samples = EvaluationViews(readable_part(images, cfg.on_bad_image, "training images"), res)
        loading = cfg.batch_size, cfg.num_workers
        centres = kmeans_centres(machine, backbone, samples, n_clusters, seed, *loading)
        maps = ProbeMaps(backbone, backbone.patch_size, {"cluster": centres}, map_settings(cfg))
        known[key] = tables.results(evaluate(machine, maps, views, *loading).metrics, views.dataset.classes)
    return known[key]
