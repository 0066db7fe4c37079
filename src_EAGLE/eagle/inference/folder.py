"""Write masks for images, folders and videos, and one JSON that lists them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from omegaconf import DictConfig
from PIL import ImageOps
from tqdm import tqdm

from eagle.checkpoints.formats import read_stored
from eagle.checkpoints.loading import build_segmenter
from eagle.config.refinement import refinement
from eagle.config.validation import check_resolution
from eagle.data.bundled import bundled_photographs
from eagle.data.class_map import named_clusters
from eagle.data.datasets.catalog import known_classes
from eagle.data.images import read_image
from eagle.data.label_images import overlay
from eagle.data.named_files import named_files, output_names
from eagle.errors import ConfigError, DataError
from eagle.evaluation.score_tables import write_json
from eagle.inference.frame_folders import join_overlays
from eagle.inference.masks import Legend, write_masks
from eagle.inference.photograph import PhotographSegmenter, View
from eagle.inference.shares import write_legend
from eagle.inference.video import VIDEO_SUFFIXES, frames, open_video, video_writer

JSON_NAME = "segments.json"
LEGEND_NAME = "legend.png"

logger = logging.getLogger(__name__)


def segment(cfg: DictConfig) -> dict[str, Any]:
    """Write masks for all files named by ``cfg.images`` and ``cfg.bundled``, and ``segments.json``.

    Each image gives ``NAME_ids.png``, ``NAME_color.png`` and ``NAME_overlay.png`` in its own size, and each video
    ``NAME_overlay.mp4``. With ``cfg.frame_rate``, each folder of images also gives ``FOLDER_overlay.mp4``.
    ``legend.png`` shows each class's colour and mean share. Unreadable files are listed in the JSON and logged.

    Args:
        cfg: a validated SegmentConfig.

    Returns:
        The JSON's content: ``classes``, ``images`` (files, size and shares of each class) and ``unreadable``.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ConfigError: no input is named, or a size is not a multiple of the patch size.
        DataError: a named path does not exist, or a folder's overlays cannot be joined to a video.
    """
    files = _files(cfg)
    path = Path(cfg.checkpoint)
    stored = read_stored(path)
    segmenter = build_segmenter(stored, path).eval()
    patch_size = segmenter.net.model.patch_size
    view = _view(cfg, segmenter.cfg.val_res)
    for name, size in (("res", view.res), ("window", view.window)):
        check_resolution(name, size or patch_size, patch_size)
    fabric = Fabric(accelerator=cfg.accelerator, devices=1, precision=cfg.precision)
    photographs = PhotographSegmenter(segmenter, cfg.probe, view, fabric)
    map_name = cfg.probe + refinement(cfg).suffix
    n_clusters = segmenter.n_classes if cfg.probe == "linear" else len(segmenter.cluster_probe.clusters)
    named = named_clusters(Path(cfg.cluster_names), map_name, n_clusters) if cfg.cluster_names else stored.class_map
    legend = Legend(named, map_name, n_clusters, known_classes(segmenter.cfg))
    content = _segment_files(
        files, Path(cfg.output_dir), photographs, legend, {"checkpoint": str(path), "map": map_name}
    )
    for reason in content["unreadable"].values():
        logger.warning("left out: %s", reason)
    if cfg.frame_rate is not None:
        content["videos"] = join_overlays(content["images"], Path(cfg.output_dir), cfg.frame_rate)
        write_json(Path(cfg.output_dir) / JSON_NAME, content)
    return content


def _files(cfg: DictConfig) -> list[Path]:
    files = named_files(cfg.images, VIDEO_SUFFIXES) + (bundled_photographs() if cfg.bundled else [])
    if not files:
        raise ConfigError("images: name at least one image, folder or video, or set bundled=true")
    return files


def _view(cfg: DictConfig, val_res: int) -> View:
    if cfg.full_resolution:
        return View(None, cfg.window or val_res, refinement(cfg), cfg.crf_backend)
    return View(cfg.res or val_res, cfg.window, refinement(cfg), cfg.crf_backend)


def _segment_files(
    files: Sequence[Path], folder: Path, photographs: PhotographSegmenter, legend: Legend, head: dict[str, Any]
) -> dict[str, Any]:
    classes = legend.classes
    named = [{"id": i, "name": name, "color": classes.palette[i].tolist()} for i, name in enumerate(classes.names)]
    content: dict[str, Any] = {**head, "classes": named, "images": {}, "unreadable": {}}
    try:
        for path, name in tqdm(list(zip(files, output_names(files), strict=True)), "segmenting", unit="file"):
            try:
                write = _segment_video if path.suffix.lower() in VIDEO_SUFFIXES else _segment_image
                content["images"][str(path)] = write(path, folder, name, photographs, legend)
            except DataError as error:
                content["unreadable"][str(path)] = str(error)
    finally:
        write_json(folder / JSON_NAME, content)
    if content["images"]:
        write_legend(folder / LEGEND_NAME, legend, [entry["shares"] for entry in content["images"].values()])
    return content


def _segment_image(
    path: Path, folder: Path, name: str, photographs: PhotographSegmenter, legend: Legend
) -> dict[str, Any]:
    photograph = ImageOps.exif_transpose(read_image(path))
    ids = legend.ids(photographs(photograph))
    written = write_masks(folder, name, photograph, ids, legend.classes)
    return {"size": list(photograph.size), "files": written, "shares": legend.shares(ids)}


def _segment_video(
    path: Path, folder: Path, name: str, photographs: PhotographSegmenter, legend: Legend
) -> dict[str, Any]:
    video = open_video(path)
    output = folder / f"{name}_overlay.mp4"
    totals: dict[str, float] = {}
    n_frames = 0
    with video_writer(output, video.size, video.rate) as write:
        for frame in tqdm(frames(video), path.name, video.n_frames, unit="frame", leave=False):
            ids = legend.ids(photographs(frame))
            write(overlay(frame, ids, legend.classes.palette))
            n_frames += 1
            for class_name, share in legend.shares(ids).items():
                totals[class_name] = totals.get(class_name, 0.0) + share
    if n_frames == 0:
        raise DataError(f"{path}: holds no frame that ffmpeg can read")
    shares = {class_name: round(total / n_frames, 6) for class_name, total in totals.items()}
    return {"size": list(video.size), "frames": n_frames, "files": {"overlay": output.name}, "shares": shares}
