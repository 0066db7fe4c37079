"""Write masks of images, folders and videos, and one JSON that lists them; a rerun skips what is finished.

A log has a record of every file whose masks are written. It says what a rerun may skip, and ``segments.json`` is made
of it.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from omegaconf import DictConfig
from tqdm import tqdm

from eagle.checkpoints import checkpoint_files
from eagle.config.refinement import RECOMMENDED, refinement
from eagle.data.images import read_photograph
from eagle.data.labels import NO_CLASS_NAME, VOID_COLOR
from eagle.data.named_files import bundled_photographs, named_files, output_names
from eagle.distributed import chosen_precision, named_devices
from eagle.errors import ConfigError, DataError
from eagle.figures.charts import frequencies_figure
from eagle.figures.drawing import write_figure
from eagle.files import LOCK_NAME, locked, remove_unfinished, sha256_of, write_text_atomically, written_atomically
from eagle.inference.photograph import PhotographSegmenter, Prepared, ordered
from eagle.inference.segmentation import Legend, Segmentation, mask_files
from eagle.inference.segmenter import open_segmenter
from eagle.inference.video import VIDEO_SUFFIXES, segment_video
from eagle.models.cluster_tree import ClusterCut

JSON_NAME = "segments.json"
LEGEND_NAME = "legend.png"
LOG_NAME = "segments.jsonl"
# Batches in a chunk of files. Images of different chunks never share a batch, so that a batch does not depend on what
# an earlier run has finished.
CHUNK_BATCHES = 4

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
    files = _files(cfg)
    names = dict(zip(map(str, files), output_names(files), strict=True))
    with named_devices(cfg):
        fabric = Fabric(accelerator=cfg.accelerator, devices=1, precision=chosen_precision(cfg))  # type: ignore[arg-type]
    folder, names_and_cut = Path(cfg.output_dir), (cfg.cluster_names, cfg.n_clusters)
    photographs = open_segmenter(Path(cfg.checkpoint), fabric).photographs(
        refinement(cfg, RECOMMENDED),
        cfg.probe,
        cfg.res,
        cfg.full_resolution,
        cfg.window,
        cfg.flip,
        cfg.crf_backend,
        *names_and_cut,
    )
    settings = _settings(cfg, photographs)
    with locked(folder / LOCK_NAME, folder):
        remove_unfinished(folder)  # of a run that was killed
        records = _records(folder, settings, names)
        finished = {path: record["stamp"] for path, record in records.items() if "entry" in record}
        with (folder / LOG_NAME).open("ab", buffering=0) as log:
            run = _Run(cfg, photographs, settings, finished, log)
            run.segment(list(zip(files, names.values(), strict=True)))
        content = _summary(folder, _records(folder, settings, names), photographs.legend, cfg)
        return content | {"already_done": len(names) - run.n_new}


def _files(cfg: DictConfig) -> list[Path]:
    """The named files, unless the next run would read results as images, or this one could replace an image."""
    files = named_files(cfg.images, VIDEO_SUFFIXES) + (bundled_photographs() if cfg.bundled else [])
    if not files:
        raise ConfigError("images: name at least one image, folder or video, or set bundled=true")
    output = Path(cfg.output_dir).resolve()
    if output in [Path(named).resolve() for named in cfg.images]:
        raise ConfigError(f"output_dir: {cfg.output_dir} is a folder of images to segment; choose another folder")
    inside = {folder for folder in {file.parent for file in files} if folder.resolve() == output}
    endings = (*mask_files("").values(), _video_file(""))
    for file in files:
        if file.parent in inside and (file.name.lower().endswith(endings) or file.name.lower() == LEGEND_NAME):
            raise ConfigError(f"output_dir: {file} is to be segmented, and named like a result; choose another folder")
    return list(dict.fromkeys(files))


def _settings(cfg: DictConfig, photographs: PhotographSegmenter) -> str:
    """Hash of what determines an image's masks besides the image.

    Left out are batch size and device: they can change scores in the last bit.
    """
    probe, legend = photographs.probe, photographs.legend
    content = {
        "checkpoint": [sha256_of(file) for file in checkpoint_files(Path(cfg.checkpoint))],
        "probe": cfg.probe,
        "view": dataclasses.asdict(photographs.view),
        "cluster_of_leaf": probe.groups.tolist() if isinstance(probe, ClusterCut) else None,
        "precision": chosen_precision(cfg),
        "legend": [legend.classes.names, legend.classes.palette.tolist(), legend.table.tolist()],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class _Job:
    """A file to segment: its output name, chunk, size and time, and whether an earlier run finished it."""

    path: Path
    name: str
    chunk: int
    stamp: list[int] | None
    finished: bool


@dataclasses.dataclass
class _Run:
    """One run; ``finished`` has the stamp of each file that earlier runs segmented, ``n_new`` counts new records."""

    cfg: DictConfig
    photographs: PhotographSegmenter
    settings: str
    finished: Mapping[str, list[int]]
    log: FileIO
    n_new: int = 0

    def segment(self, files: Sequence[tuple[Path, str]]) -> None:
        """Segment images, then videos, of files and their output names."""
        images, videos = ([file for file in files if _is_video(file[0]) == wanted] for wanted in (False, True))
        length = CHUNK_BATCHES * self.cfg.batch_size
        jobs = [self._job(*file, number // length) for number, file in enumerate(images)]
        # Finished files of the other chunks complete the batches as they were.
        unfinished = {job.chunk for job in jobs if not job.finished}
        jobs = [job for job in jobs if job.chunk in unfinished]
        n_done = len(images) - len(jobs)
        with tqdm(total=len(files), initial=n_done, unit="file", desc="segmenting") as progress:
            self._segment_images(jobs, progress)
            for path, name in videos:
                self._segment_video(self._job(path, name))
                progress.update()

    def _job(self, path: Path, name: str, chunk: int = 0) -> _Job:
        stamp = _stamp(path)
        written = [_video_file(name)] if _is_video(path) else mask_files(name).values()
        finished = stamp is not None and self.finished.get(str(path)) == stamp
        finished = finished and all((self._folder / file).is_file() for file in written)
        return _Job(path, name, chunk, stamp, finished)

    def _segment_images(self, jobs: Iterable[_Job], progress: "tqdm[_Job]") -> None:
        """Write masks and records; threads read and write while the model computes.

        At most ``batch_size + num_workers`` photographs are read ahead and as many wait to be written, and some wait
        for partners of their size, whatever the number of files.
        """
        n_threads, ahead = self.cfg.num_workers, self.cfg.batch_size + self.cfg.num_workers

        def readable() -> Iterator[tuple[_Job, Prepared]]:
            for job, found in ordered(self._read, jobs, n_threads, ahead):
                progress.update()
                if isinstance(found, str):
                    self._record(job, unreadable=found)
                else:
                    yield job, found

        def segmented() -> Iterator[tuple[_Job, Prepared, np.ndarray]]:
            for _, chunk in groupby(readable(), key=lambda file: file[0].chunk):
                results = self.photographs.segmented(chunk, self.cfg.batch_size)
                yield from (result for result in results if not result[0].finished)

        for job, entry in ordered(self._write, segmented(), n_threads, ahead):
            self._record(job, entry=entry)

    def _segment_video(self, job: _Job) -> None:
        if not job.finished:
            target = self._folder / _video_file(job.name)
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
        files = {kind: path.name for kind, path in segmented.save(self._folder).items()}
        return job, {"size": list(prepared.photograph.size), "files": files, "shares": segmented.shares()}

    def _record(self, job: _Job, **result: Any) -> None:
        """Append a file's record: its ``entry`` in the JSON, or why it is ``unreadable``."""
        record = {"path": str(job.path), "name": job.name, "settings": self.settings, "stamp": job.stamp, **result}
        self.log.write(_line(record))
        self.n_new += 1

    @property
    def _folder(self) -> Path:
        return Path(self.cfg.output_dir)


def _records(folder: Path, settings: str, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The latest record of each path in the log, which is written again with these alone.

    Records of other settings, files or names are dropped: the masks that they describe may be overwritten.
    """
    latest: dict[str, dict[str, Any]] = {}
    log = folder / LOG_NAME
    for line in log.read_bytes().splitlines() if log.is_file() else ():
        try:
            record = json.loads(line)
            if record["settings"] == settings and names.get(record["path"]) == record["name"]:
                latest[record["path"]] = record
        except (ValueError, KeyError, TypeError):
            continue  # a kill or a full disk tore it: the file is segmented again
    records = {path: latest[path] for path in names if path in latest}
    with written_atomically(log) as temporary, temporary.open("wb") as file:
        file.writelines(map(_line, records.values()))
    return records


def _summary(folder: Path, records: Mapping[str, dict[str, Any]], legend: Legend, cfg: DictConfig) -> dict[str, Any]:
    """Write ``segments.json`` and the legend."""
    colors = legend.classes.palette.tolist()
    content: dict[str, Any] = {
        "checkpoint": str(Path(cfg.checkpoint)),
        "map": cfg.probe + refinement(cfg, RECOMMENDED).suffix,
        "classes": [{"id": i, "name": name, "color": colors[i]} for i, name in enumerate(legend.classes.names)],
        "images": {path: record["entry"] for path, record in records.items() if "entry" in record},
        "unreadable": {path: record["unreadable"] for path, record in records.items() if "entry" not in record},
    }
    write_text_atomically(folder / JSON_NAME, json.dumps(content, indent=2, allow_nan=False) + "\n")
    for reason in content["unreadable"].values():
        logger.warning("left out: %s", reason)
    if content["images"]:
        write_legend(folder / LEGEND_NAME, legend, [entry["shares"] for entry in content["images"].values()])
    return content


def write_legend(path: Path, legend: Legend, shares: Sequence[Mapping[str, float]]) -> None:
    """Draw one bar per class in its mask colour; the bar's length is the class's mean share of an image.

    Args:
        path: PNG to write.
        legend: names and colours of the masks.
        shares: for each image, the result of ``Legend.shares``.
    """
    names, colors = [*legend.classes.names], [*legend.classes.palette]
    if NO_CLASS_NAME not in names and any(NO_CLASS_NAME in image for image in shares):
        names.append(NO_CLASS_NAME)
        colors.append(np.array(VOID_COLOR, dtype=np.uint8))
    total = np.array([sum(image.get(name, 0.0) for image in shares) for name in names])
    title = f"mean share of {len(shares)} images"
    write_figure(path, frequencies_figure(names, np.stack(colors), total, np.zeros(0), title))


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode()


def _stamp(path: Path) -> list[int] | None:
    """Size and time of the last change in nanoseconds, by which a changed file is noticed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _video_file(name: str) -> str:
    return f"{name}_overlay.mp4"
