"""Write masks of images, folders and videos, and one JSON that lists them; a rerun skips what is finished.

A log has a record of every file whose masks are written. It says what a rerun may skip, and ``segments.json`` is made
of it.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any

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
from eagle.files import LOCK_NAME, locked, remove_unfinished, sha256_of, write_text_atomically, written_atomically
from eagle.inference.photograph import PhotographSegmenter, Prepared, ordered
from eagle.inference.segmentation import Legend, Segmentation, mask_files
from eagle.inference.segmenter import load_segmenter
from eagle.inference.video import VIDEO_SUFFIXES, segment_video
from eagle.models.cluster_tree import ClusterCut

JSON_NAME = "segments.json"
LEGEND_NAME = "legend.png"
LOG_NAME = "segments.jsonl"

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
    photographs = load_segmenter(cfg.checkpoint, cfg.accelerator, chosen_precision(cfg)).photographs(
        refinement(cfg, RECOMMENDED),
        cfg.probe,
        cfg.res,
        cfg.full_resolution,
        cfg.window,
        cfg.flip,
        cfg.crf_backend,
        cfg.cluster_names,
        cfg.n_clusters,
    )
    settings = _settings(cfg, photographs)
    jobs = [
        _Job(path, name, number // cfg.batch_size, _stamp(path, settings))
        for number, (path, name) in enumerate(zip(files, output_names(files), strict=True))
    ]
    with locked(folder / LOCK_NAME, folder):
        remove_unfinished(folder)  # of a run that was killed
        records = _finished(folder, jobs)
        n_done = len(records)
        with (folder / LOG_NAME).open("ab", buffering=0) as log:
            _Run(cfg, photographs, records, log).segment(jobs)
        content = _summary(folder, [records[str(job.path)] for job in jobs], photographs.legend, cfg)
        return content | {"already_done": n_done}


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


def _stamp(path: Path, settings: str) -> list[Any]:
    """The settings' hash, and the size and time of the last change of a file, by which a changed file is noticed."""
    try:
        status = path.stat()
    except OSError:
        return [settings]
    return [settings, status.st_size, status.st_mtime_ns]


@dataclasses.dataclass(frozen=True)
class _Job:
    """A file to segment, its output name, the number of its batch, and the stamp of its record."""

    path: Path
    name: str
    batch: int
    stamp: list[Any]

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def files(self) -> dict[str, str]:
        """The files to write, by kind."""
        return {"overlay": f"{self.name}_overlay.mp4"} if self.is_video else mask_files(self.name)


@dataclasses.dataclass
class _Run:
    """One run, which adds to ``records`` and to ``log``; see ``_finished``."""

    cfg: DictConfig
    photographs: PhotographSegmenter
    records: dict[str, dict[str, Any]]
    log: FileIO

    def segment(self, jobs: Sequence[_Job]) -> None:
        """Segment images, then videos."""
        left = [job for job in jobs if str(job.path) not in self.records]
        # A batch with an unfinished image is computed whole, so that no result depends on what is finished.
        batches = {job.batch for job in left}
        images = [job for job in jobs if job.batch in batches and not job.is_video]
        videos = [job for job in left if job.is_video]
        n_done = len(jobs) - len(images) - len(videos)
        with tqdm(total=len(jobs), initial=n_done, unit="file", desc="segmenting") as progress:
            self._segment_images(images, progress)
            for job in videos:
                self._segment_video(job)
                progress.update()

    def _segment_images(self, jobs: Sequence[_Job], progress: "tqdm[_Job]") -> None:
        """Write masks and records; threads read and write while the model computes.

        At most ``batch_size + num_workers`` photographs are read ahead and as many wait to be written, whatever the
        number of files.
        """
        n_threads, ahead = self.cfg.num_workers, self.cfg.batch_size + self.cfg.num_workers
        done = set(self.records)

        def readable() -> Iterator[tuple[_Job, Prepared]]:
            for job, found in ordered(self._read, jobs, n_threads, ahead):
                progress.update()
                if isinstance(found, str):
                    self._record(job, unreadable=found)
                else:
                    yield job, found

        def segmented() -> Iterator[tuple[_Job, Prepared, np.ndarray]]:
            for _, batch in groupby(readable(), key=lambda file: file[0].batch):
                results = self.photographs.segmented(batch, self.cfg.batch_size)
                yield from (result for result in results if str(result[0].path) not in done)

        for job, entry in ordered(self._write, segmented(), n_threads, ahead):
            self._record(job, entry=entry)

    def _segment_video(self, job: _Job) -> None:
        target = Path(self.cfg.output_dir) / job.files["overlay"]
        sizes = self.cfg.batch_size, self.cfg.num_workers
        try:
            self._record(job, entry=segment_video(job.path, target, self.photographs, *sizes))
        except DataError as error:
            self._record(job, unreadable=str(error))

    def _read(self, job: _Job) -> tuple[_Job, Prepared | str]:
        try:
            return job, self.photographs.prepare(read_photograph(job.path))
        except DataError as error:
            return job, str(error)

    def _write(self, result: tuple[_Job, Prepared, np.ndarray]) -> tuple[_Job, dict[str, Any]]:
        job, prepared, clusters = result
        legend = self.photographs.legend
        segmented = Segmentation(prepared.photograph, legend.ids(clusters), legend, job.name)
        segmented.save(Path(self.cfg.output_dir))
        return job, {"size": list(prepared.photograph.size), "files": job.files, "shares": segmented.shares()}

    def _record(self, job: _Job, **result: Any) -> None:
        """Append a file's record: its ``entry`` in the JSON, or why it is ``unreadable``."""
        record = {"path": str(job.path), "name": job.name, "stamp": job.stamp, **result}
        self.records[str(job.path)] = record
        self.log.write(_line(record))


def _finished(folder: Path, jobs: Sequence[_Job]) -> dict[str, dict[str, Any]]:
    """The records of finished files by path, which the log is reduced to.

    Those of changed settings, files or names are dropped: the masks that they describe may be overwritten.
    """
    latest: dict[str, dict[str, Any]] = {}
    log = folder / LOG_NAME
    for line in log.read_bytes().splitlines() if log.is_file() else ():
        try:
            record = json.loads(line)
            latest[record["path"]] = record
        except (ValueError, KeyError, TypeError):
            continue  # a kill or a full disk tore it: the file is segmented again
    records = {}
    for job in jobs:
        record = latest.get(str(job.path), {})
        written = all((folder / file).is_file() for file in job.files.values())
        if "entry" in record and (record.get("name"), record.get("stamp")) == (job.name, job.stamp) and written:
            records[str(job.path)] = record
    with written_atomically(log) as temporary, temporary.open("wb") as file:
        file.writelines(map(_line, records.values()))
    return records


def _summary(folder: Path, records: Sequence[dict[str, Any]], legend: Legend, cfg: DictConfig) -> dict[str, Any]:
    """Write ``segments.json`` and the legend."""
    colors = legend.classes.palette.tolist()
    content: dict[str, Any] = {
        "checkpoint": str(Path(cfg.checkpoint)),
        "map": cfg.probe + refinement(cfg, RECOMMENDED).suffix,
        "classes": [{"id": i, "name": name, "color": colors[i]} for i, name in enumerate(legend.classes.names)],
        "images": {record["path"]: record["entry"] for record in records if "entry" in record},
        "unreadable": {record["path"]: record["unreadable"] for record in records if "entry" not in record},
    }
    write_text_atomically(folder / JSON_NAME, json.dumps(content, indent=2, allow_nan=False) + "\n")
    for reason in content["unreadable"].values():
        logger.warning("left out: %s", reason)
    if content["images"]:
        _write_legend(folder / LEGEND_NAME, legend, [entry["shares"] for entry in content["images"].values()])
    return content


def _write_legend(path: Path, legend: Legend, shares: Sequence[Mapping[str, float]]) -> None:
    """Draw one bar per class in its mask colour; the bar's length is the class's mean share of an image."""
    names, colors = [*legend.classes.names], [*legend.classes.palette]
    if NO_CLASS_NAME not in names and any(NO_CLASS_NAME in image for image in shares):
        names.append(NO_CLASS_NAME)
        colors.append(np.array(VOID_COLOR, dtype=np.uint8))
    total = np.array([sum(image.get(name, 0.0) for image in shares) for name in names])
    title = f"mean share of {len(shares)} images"
    write_figure(path, frequencies_figure(names, np.stack(colors), total, np.zeros(0), title))


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode()
