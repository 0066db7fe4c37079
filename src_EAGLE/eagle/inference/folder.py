"""Write masks for images, folders and videos, and one JSON that lists them."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from omegaconf import DictConfig
from tqdm import tqdm

from eagle.checkpoints import SLIM
from eagle.config.refinement import refinement
from eagle.data.bundled import bundled_photographs
from eagle.data.named_files import named_files, output_names
from eagle.distributed import computed_by_rank_zero
from eagle.errors import ConfigError
from eagle.evaluation.score_tables import write_json
from eagle.files import sha256_of
from eagle.inference.frame_folders import join_overlays
from eagle.inference.image_files import NamedFile, Output, segment_image_files
from eagle.inference.masks import Legend
from eagle.inference.photograph import PhotographSegmenter, View
from eagle.inference.pipeline import chunks
from eagle.inference.ranks import launched_fabric
from eagle.inference.segmenter import open_segmenter
from eagle.inference.segments_log import FinishedFiles, joined_records, keep_reusable, rank_log
from eagle.inference.shares import write_legend
from eagle.inference.video import VIDEO_SUFFIXES
from eagle.inference.video_files import segment_video_files

JSON_NAME = "segments.json"
LEGEND_NAME = "legend.png"

logger = logging.getLogger(__name__)


def segment(cfg: DictConfig) -> dict[str, Any] | None:
    """Write masks for all files named by ``cfg.images`` and ``cfg.bundled``, and ``segments.json``.

    Each image gives ``NAME_ids.png``, ``NAME_color.png`` and ``NAME_overlay.png`` in its own size, and each video
    ``NAME_overlay.mp4``. With ``cfg.frame_rate``, each folder of images also gives ``FOLDER_overlay.mp4``.
    ``legend.png`` shows each class's colour and mean share. Unreadable files are listed in the JSON and logged.

    Files that an earlier run finished are skipped if neither they nor the settings have changed; ``segments.jsonl``
    records them. Devices share the files; the process of rank 0 writes the JSON, the legend and the folders' videos.

    Args:
        cfg: a validated SegmentConfig.

    Returns:
        The JSON's content: ``classes``, ``images`` (files, size and shares of each class) and ``unreadable``; None in
        processes of other ranks.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ConfigError: no input is named, a size is not a multiple of the patch size, or a device is missing.
        DataError: a named path does not exist, processes do not share the output folder, or a folder's overlays cannot
            be joined to a video.
    """
    files = _files(cfg)
    fabric = launched_fabric(cfg)
    files = fabric.broadcast(files)  # processes that list a folder while it grows would disagree
    names = dict(zip(map(str, files), output_names(files), strict=True))
    path, folder = Path(cfg.checkpoint), Path(cfg.output_dir)
    segmenter = open_segmenter(path, fabric)
    view = segmenter.view(cfg.res, cfg.full_resolution, cfg.window, refinement(cfg), cfg.crf_backend)
    photographs = segmenter.photographs(cfg.probe, view)
    legend = segmenter.legend(cfg.probe, refinement(cfg), cfg.cluster_names)
    settings = _settings(cfg, view, legend)
    computed_by_rank_zero(lambda: keep_reusable(folder, settings, names))
    with rank_log(folder, fabric.global_rank, settings) as log:
        output = Output(folder, legend, log, FinishedFiles(folder))
        _segment_share(list(zip(files, names.values(), strict=True)), photographs, output, cfg, fabric)
    fabric.barrier()
    if not fabric.is_global_zero:
        return None
    return _joined(
        folder, names, legend, {"checkpoint": str(path), "map": cfg.probe + refinement(cfg).suffix}, cfg.frame_rate
    )


def _files(cfg: DictConfig) -> list[Path]:
    files = named_files(cfg.images, VIDEO_SUFFIXES) + (bundled_photographs() if cfg.bundled else [])
    if not files:
        raise ConfigError("images: name at least one image, folder or video, or set bundled=true")
    return list(dict.fromkeys(files))


def _settings(cfg: DictConfig, view: View, legend: Legend) -> str:
    """Hash of what determines an image's masks besides the image.

    Left out are batch size and devices: they can change scores in the last bit.
    """
    path = Path(cfg.checkpoint)
    stored = [path, path.with_suffix(".yml")] if path.suffix == SLIM else [path]
    content = {
        "checkpoint": [sha256_of(file) for file in stored],
        "probe": cfg.probe,
        "view": dataclasses.asdict(view),
        "precision": [cfg.precision, cfg.matmul_precision],
        "legend": legend.to_plain(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _segment_share(
    files: Sequence[NamedFile], photographs: PhotographSegmenter, output: Output, cfg: DictConfig, fabric: Fabric
) -> None:
    """Segment every ``world_size``-th chunk of images and every ``world_size``-th video."""
    images = [file for file in files if file[0].suffix.lower() not in VIDEO_SUFFIXES]
    videos = [file for file in files if file[0].suffix.lower() in VIDEO_SUFFIXES]
    mine = slice(fabric.global_rank, None, fabric.world_size)
    image_share, video_share = chunks(images, cfg.batch_size)[mine], videos[mine]
    n_files = sum(map(len, image_share)) + len(video_share)
    with tqdm(total=n_files, desc="segmenting", unit="file", disable=not fabric.is_global_zero) as progress:
        arguments = (photographs, output, cfg.batch_size, cfg.num_workers, progress)
        segment_image_files(image_share, *arguments)
        segment_video_files(video_share, *arguments)


def _joined(
    folder: Path, names: dict[str, str], legend: Legend, head: dict[str, Any], frame_rate: float | None
) -> dict[str, Any]:
    """Write ``segments.json``, the legend and the folders' videos from the records of all processes."""
    classes = legend.classes
    named = [{"id": i, "name": name, "color": classes.palette[i].tolist()} for i, name in enumerate(classes.names)]
    records = joined_records(folder, names)
    images = {path: record["entry"] for path, record in records.items() if "entry" in record}
    unreadable = {path: record["unreadable"] for path, record in records.items() if "entry" not in record}
    content: dict[str, Any] = {**head, "classes": named, "images": images, "unreadable": unreadable}
    write_json(folder / JSON_NAME, content)
    if images:
        write_legend(folder / LEGEND_NAME, legend, [entry["shares"] for entry in images.values()])
    for reason in unreadable.values():
        logger.warning("left out: %s", reason)
    if frame_rate is not None:
        content["videos"] = join_overlays(images, folder, frame_rate)
        write_json(folder / JSON_NAME, content)
    return content
