"""Segment a process's share of the image files: threads read and write while the model computes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eagle.data.images import read_photograph
from eagle.errors import DataError
from eagle.inference.masks import Legend, mask_files, write_masks
from eagle.inference.photograph import PhotographSegmenter, Prepared
from eagle.inference.pipeline import batches, bounded_calls, ordered
from eagle.inference.segments_log import FinishedFiles, RankLog, Stamp, stamp_of

# A file and its output name.
NamedFile = tuple[Path, str]


@dataclass(frozen=True)
class Output:
    """Where results go.

    Attributes:
        folder: folder of the masks.
        legend: names and colours.
        log: this process's records.
        finished: what earlier runs segmented.
    """

    folder: Path
    legend: Legend
    log: RankLog
    finished: FinishedFiles


@dataclass(frozen=True)
class _Job:
    chunk: int
    path: Path
    name: str
    stamp: Stamp
    finished: bool


@dataclass(frozen=True)
class _ReadFile:
    job: _Job
    prepared: Prepared | None
    unreadable: str = ""


def segment_image_files(
    share: Iterable[Sequence[NamedFile]],
    photographs: PhotographSegmenter,
    output: Output,
    batch_size: int,
    n_threads: int,
    progress: "tqdm[NamedFile]",
) -> None:
    """Write masks and records of the files that are not finished.

    At most ``batch_size + n_threads`` photographs are read ahead, as many wait to be written, and
    ``WAITING_PIXELS`` wait for partners of their size, whatever the number of files.

    Args:
        share: chunks of the files, see ``chunks``.
        photographs: computes label maps.
        output: receives the results.
        batch_size: most images of a batch.
        n_threads: threads that read, and as many that write.
        progress: advanced by each file.
    """
    most = batch_size + n_threads
    with ThreadPoolExecutor(n_threads) as readers, bounded_calls(n_threads, most) as call:
        files = ordered(partial(_read, photographs), _unfinished_chunks(share, output, progress), readers, most)
        for _, chunk in groupby(files, key=lambda file: file.job.chunk):
            for batch in batches(_readable(chunk, output, progress), batch_size, lambda item: item[1]):
                _segment_batch(batch, photographs, output, call)


def _segment_batch(
    batch: Sequence[tuple[_Job, Prepared]],
    photographs: PhotographSegmenter,
    output: Output,
    call: Callable[..., None],
) -> None:
    if all(job.finished for job, _ in batch):
        return
    maps = photographs.label_maps([prepared for _, prepared in batch])
    for (job, prepared), clusters in zip(batch, maps, strict=True):
        if not job.finished:
            call(_write, job, prepared, clusters, output)


def _unfinished_chunks(
    share: Iterable[Sequence[NamedFile]], output: Output, progress: "tqdm[NamedFile]"
) -> Iterator[_Job]:
    """The files of the chunks with any unfinished file: finished ones complete the batches as they were."""
    for number, chunk in enumerate(share):
        jobs = [_job(number, path, name, output) for path, name in chunk]
        if all(job.finished for job in jobs):
            progress.update(len(jobs))
        else:
            yield from jobs


def _job(chunk: int, path: Path, name: str, output: Output) -> _Job:
    stamp = stamp_of(path)
    finished = output.finished.has(path, name, stamp)
    finished = finished and all((output.folder / file).is_file() for file in mask_files(name).values())
    return _Job(chunk, path, name, stamp, finished)


def _read(photographs: PhotographSegmenter, job: _Job) -> _ReadFile:
    try:
        return _ReadFile(job, photographs.prepare(read_photograph(job.path)))
    except DataError as error:
        return _ReadFile(job, None, str(error))


def _readable(
    files: Iterable[_ReadFile], output: Output, progress: "tqdm[NamedFile]"
) -> Iterator[tuple[_Job, Prepared]]:
    """Record the unreadable files and yield the others."""
    for file in files:
        progress.update()
        if file.prepared is None:
            output.log.add(file.job.path, file.job.name, file.job.stamp, unreadable=file.unreadable)
        else:
            yield file.job, file.prepared


def _write(job: _Job, prepared: Prepared, clusters: np.ndarray, output: Output) -> None:
    ids = output.legend.ids(clusters)
    written = write_masks(output.folder, job.name, prepared.photograph, ids, output.legend.classes)
    entry = {"size": list(prepared.photograph.size), "files": written, "shares": output.legend.shares(ids)}
    output.log.add(job.path, job.name, job.stamp, entry=entry)
