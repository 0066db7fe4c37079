"""Segment video files: threads prepare and draw frames while the model computes."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from eagle.data.labels import overlay
from eagle.errors import DataError
from eagle.inference.image_files import NamedFile, Output
from eagle.inference.masks import Legend
from eagle.inference.photograph import PhotographSegmenter, Prepared
from eagle.inference.pipeline import batches, ordered
from eagle.inference.segments_log import stamp_of
from eagle.inference.video import frames, open_video, video_writer


def segment_video_files(
    share: Iterable[NamedFile],
    photographs: PhotographSegmenter,
    output: Output,
    batch_size: int,
    n_threads: int,
    progress: "tqdm[NamedFile]",
) -> None:
    """Write ``NAME_overlay.mp4`` and a record of each video that is not finished; arguments as for image files."""
    for path, name in share:
        stamp, target = stamp_of(path), output.folder / f"{name}_overlay.mp4"
        if not (output.finished.has(path, name, stamp) and target.is_file()):
            try:
                entry = _segment_video(path, target, photographs, output.legend, batch_size, n_threads)
                output.log.add(path, name, stamp, entry=entry)
            except DataError as error:
                output.log.add(path, name, stamp, unreadable=str(error))
        progress.update()


def _segment_video(
    path: Path, target: Path, photographs: PhotographSegmenter, legend: Legend, batch_size: int, n_threads: int
) -> dict[str, Any]:
    def segmented(prepared: Iterable[Prepared]) -> Iterator[tuple[Prepared, np.ndarray]]:
        for batch in batches(prepared, batch_size, lambda item: item):
            yield from zip(batch, photographs.label_maps(batch), strict=True)

    def drawn(frame: tuple[Prepared, np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
        ids = legend.ids(frame[1])
        return overlay(frame[0].photograph, ids, legend.classes.palette), legend.shares(ids)

    video = open_video(path)
    totals: dict[str, float] = {}
    n_frames = 0
    with video_writer(target, video.size, video.rate) as write, ThreadPoolExecutor(n_threads) as pool:
        seen = tqdm(frames(video), path.name, video.n_frames, unit="frame", leave=False)
        prepared = ordered(photographs.prepare, seen, pool, batch_size + n_threads)
        for pixels, shares in ordered(drawn, segmented(prepared), pool, batch_size + n_threads):
            write(pixels)
            n_frames += 1
            for class_name, share in shares.items():
                totals[class_name] = totals.get(class_name, 0.0) + share
    if n_frames == 0:
        raise DataError(f"{path}: holds no frame that ffmpeg can read")
    shares = {class_name: round(total / n_frames, 6) for class_name, total in totals.items()}
    return {"size": list(video.size), "frames": n_frames, "files": {"overlay": target.name}, "shares": shares}
