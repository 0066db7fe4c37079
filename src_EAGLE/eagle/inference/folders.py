"""Write masks of images, folders and videos, and one JSON that lists them; a rerun skips what is finished.

A log has a record of every file whose masks are written. It says what a rerun may skip, and ``segments.json`` is made
of it.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from eagle.checkpoints import checkpoint_files
from eagle.config.refinement import RECOMMENDED, refinement
from eagle.data.images import read_photograph
from eagle.data.labels import NO_CLASS_NAME, VOID_COLOR
from eagle.data.named_files import bundled_photographs, named_files, output_names
from eagle.distributed import chosen_precision
from eagle.errors import ConfigError, DataError
from eagle.figures.charts import frequencies_figure
from eagle.figures.drawing import write_figure
from eagle.files import only_writer, sha256_of, write_text_atomically, written_atomically
from eagle.inference.photograph import PhotographSegmenter, Prepared, ordered
from eagle.inference.segmentation import Legend, Segmentation, mask_files
from eagle.inference.segmenter import load_segmenter
from eagle.inference.video import VIDEO_SUFFIXES, segment_video
from eagle.models.cluster_tree import ClusterCut

JSON_NAME = "segments.json"
LEGEND_NAME = "legend.png"
LOG_NAME = "segments.jsonl"
# Keys that are arguments of ``Segmenter.photographs``.
OPTIONS = ("probe", "res", "full_resolution", "window", "flip", "crf_backend", "cluster_names", "n_clusters")

logger = logging.getLogger(__name__)


def segment(cfg: DictConfig) -> dict[str, Any]:
    """Write masks for all files named by ``cfg.images`` and ``cfg.bundled``, and ``segments.json``.

    Each image gives ``NAME_ids.png``, ``NAME_color.png`` and ``NAME_overlay.png`` in its own size, and each video
    ``NAME_overlay.mp4``. ``legend.png`` shows each class's colour and mean share. Unreadable files are listed in the
    JSON and logged.

    Files that an earlier run finished are skipped if neither they nor the settings have changed; ``segments.jsonl``
    records them.

    Args:
        cfg: a validated SegmentConfig.

    Returns:
        The JSON's content: ``classes``, ``images`` (files, size and shares of each class) and ``unreadable``; and
        ``already_done``, the number of files that earlier runs finished.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ConfigError: no input is named, results could replace inputs, a size is not a multiple of the patch size, or a
            device is missing.
        DataError: a named path does not exist.
        EagleError: another run writes to the output folder.
    """
    files, folder = _files(cfg), Path(cfg.output_dir)
    segmenter = load_segmenter(cfg.checkpoint, cfg.accelerator, chosen_precision(cfg))
    photographs = segmenter.photographs(refinement(cfg, RECOMMENDED), **{name: cfg[name] for name in OPTIONS})
    settings = _settings(cfg, photographs)
    jobs = [
        _job(path, name, number, cfg.batch_size, settings)
        for number, (path, name) in enumerate(zip(files, output_names(files), strict=True))
    ]
    with only_writer(folder):
        entries = _finished(folder, jobs)
        left = [job for job in jobs if job.path not in entries]
        unreadable: dict[str, str] = {}
        with (folder / LOG_NAME).open("ab", buffering=0) as log:
            images, videos = ([job for job in left if job.is_video == kind] for kind in (False, True))
            results = chain(_images(images, photographs, cfg), _videos(videos, photographs, cfg))
            for job, found in tqdm(results, "segmenting", len(jobs), unit="file", initial=len(entries)):
                if isinstance(found, str):
                    unreadable[job.path] = found
                else:
                    entries[job.path] = found
                    log.write(_line(job, found))
        content = _summary(cfg, photographs.legend, jobs, entries, unreadable)
    return content | {"already_done": len(jobs) - len(left)}


def _files(cfg: DictConfig) -> list[Path]:
    """The named files; none in the output folder, where results could replace them or be read as images next time."""
    files = named_files(cfg.images, VIDEO_SUFFIXES) + (bundled_photographs() if cfg.bundled else [])
    if not files:
        raise ConfigError("images: name at least one image, folder or video, or set bundled=true")
    if Path(cfg.output_dir).resolve() in {folder.resolve() for folder in {file.parent for file in files}}:
        raise ConfigError(f"output_dir: {cfg.output_dir} is a folder of images to segment; choose another folder")
    return list(dict.fromkeys(files))


def _settings(cfg: DictConfig, photographs: PhotographSegmenter) -> str:
    """Hash of what determines an image's masks besides the image.

    Left out are batch size and device: they can change scores in the last bit.
    """
    probe, legend = photographs.probe, photographs.legend
    content = {
        "checkpoint": [sha256_of(file) for file in checkpoint_files(Path(cfg.checkpoint))],
        "probe": cfg.probe,
        "res": photographs.res,
        "maps": dataclasses.asdict(photographs.settings),
        "cluster_of_leaf": probe.groups.tolist() if isinstance(probe, ClusterCut) else None,
        "precision": chosen_precision(cfg),
        "legend": [legend.classes.names, legend.classes.palette.tolist(), legend.table.tolist()],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class _Job(NamedTuple):
    """A file to segment.

    A batch is computed whole, so that no result depends on what is finished; a video is a batch of its own. The stamp
    has the output name, the settings' hash, and size and time of the file, by which a change of these is noticed.
    """

    path: str
    name: str
    batch: int
    stamp: list[Any]
    is_video: bool

    @property
    def files(self) -> dict[str, str]:
        """The files to write, by kind."""
        return {"overlay": f"{self.name}_overlay.mp4"} if self.is_video else mask_files(self.name)


def _job(path: Path, name: str, number: int, batch_size: int, settings: str) -> _Job:
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    status = path.stat() if path.exists() else None
    stamp = [name, settings, status and [status.st_size, status.st_mtime_ns]]
    return _Job(str(path), name, -number - 1 if is_video else number // batch_size, stamp, is_video)


def _images(
    jobs: Sequence[_Job], photographs: PhotographSegmenter, cfg: DictConfig
) -> Iterator[tuple[_Job, dict[str, Any] | str]]:
    """Write masks of images; yield each one's entry in the JSON, or why it is unreadable.

    Threads read and write while the model computes. At most ``batch_size + num_workers`` photographs are read ahead
    and as many wait to be written, whatever the number of files.
    """
    folder, legend, unreadable = Path(cfg.output_dir), photographs.legend, list[tuple[_Job, str]]()
    n_threads, ahead = cfg.num_workers, cfg.batch_size + cfg.num_workers

    def read(job: _Job) -> tuple[_Job, Prepared | str]:
        try:
            return job, photographs.prepare(read_photograph(Path(job.path)))
        except DataError as error:
            return job, str(error)

    def readable() -> Iterator[tuple[_Job, Prepared]]:
        for job, found in ordered(read, jobs, n_threads, ahead):
            if isinstance(found, str):
                unreadable.append((job, found))
            else:
                yield job, found

    def segmented() -> Iterator[tuple[_Job, Prepared, np.ndarray]]:
        for _, batch in groupby(readable(), key=lambda item: item[0].batch):
            yield from photographs.segmented(batch, cfg.batch_size)

    def write(result: tuple[_Job, Prepared, np.ndarray]) -> tuple[_Job, dict[str, Any]]:
        job, (photograph, _), clusters = result
        masks = Segmentation(photograph, legend.ids(clusters), legend, job.name)
        masks.save(folder)
        return job, {"size": list(photograph.size), "files": job.files, "shares": masks.shares()}

    yield from ordered(write, segmented(), n_threads, ahead)
    yield from unreadable


def _videos(
    jobs: Sequence[_Job], photographs: PhotographSegmenter, cfg: DictConfig
) -> Iterator[tuple[_Job, dict[str, Any] | str]]:
    """``_images`` for videos."""
    for job in jobs:
        target = Path(cfg.output_dir) / job.files["overlay"]
        try:
            yield job, segment_video(Path(job.path), target, photographs, cfg.batch_size, cfg.num_workers)
        except DataError as error:
            yield job, str(error)


def _finished(folder: Path, jobs: Sequence[_Job]) -> dict[str, dict[str, Any]]:
    """The entries, by path, of the files whose batch is finished; the log is reduced to them.

    Others are dropped: the masks that they describe may be overwritten.
    """
    latest: dict[str, Any] = {}
    log = folder / LOG_NAME
    for line in log.read_bytes().splitlines() if log.is_file() else ():
        with suppress(ValueError, KeyError, TypeError):  # a kill or a full disk tore it: the file is segmented again
            record = json.loads(line)
            latest[record["path"]] = record["stamp"], record["entry"]
    unfinished = {
        job.batch
        for job in jobs
        if latest.get(job.path, (None,))[0] != job.stamp
        or not all((folder / file).is_file() for file in job.files.values())
    }
    finished = [job for job in jobs if job.batch not in unfinished]
    entries = {job.path: latest[job.path][1] for job in finished}
    with written_atomically(log) as temporary, temporary.open("wb") as file:
        file.writelines(_line(job, entries[job.path]) for job in finished)
    return entries


def _line(job: _Job, entry: Mapping[str, Any]) -> bytes:
    return (json.dumps({"path": job.path, "stamp": job.stamp, "entry": entry}, allow_nan=False) + "\n").encode()


def _summary(
    cfg: DictConfig,
    legend: Legend,
    jobs: Sequence[_Job],
    entries: Mapping[str, dict[str, Any]],
    unreadable: Mapping[str, str],
) -> dict[str, Any]:
    """Write ``segments.json`` and the legend."""
    folder, names, colors = Path(cfg.output_dir), list(legend.classes.names), legend.classes.palette
    content: dict[str, Any] = {
        "checkpoint": str(Path(cfg.checkpoint)),
        "map": cfg.probe + refinement(cfg, RECOMMENDED).suffix,
        "classes": [{"id": i, "name": name, "color": colors[i].tolist()} for i, name in enumerate(names)],
        "images": {job.path: entries[job.path] for job in jobs if job.path in entries},
        "unreadable": {job.path: unreadable[job.path] for job in jobs if job.path in unreadable},
    }
    write_text_atomically(folder / JSON_NAME, json.dumps(content, indent=2, allow_nan=False) + "\n")
    for reason in content["unreadable"].values():
        logger.warning("left out: %s", reason)
    shares = [entry["shares"] for entry in content["images"].values()]
    if shares:
        if NO_CLASS_NAME not in names and any(NO_CLASS_NAME in image for image in shares):
            names, colors = [*names, NO_CLASS_NAME], np.vstack([colors, VOID_COLOR])
        total = np.array([sum(image.get(name, 0.0) for image in shares) for name in names])
        title = f"mean share of {len(shares)} images"
        write_figure(folder / LEGEND_NAME, frequencies_figure(names, colors, total, np.zeros(0), title))
    return content
