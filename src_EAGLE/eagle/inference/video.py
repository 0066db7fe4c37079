"""Segment videos; PyAV brings the decoders and H.264."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.data.labels import overlay
from eagle.errors import DataError
from eagle.files import written_atomically
from eagle.inference.photograph import PhotographSegmenter, Prepared, ordered

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
# Unit of the times in the videos that are written, in seconds.
CLOCK = Fraction(1, 90_000)


def segment_video(
    path: Path, target: Path, photographs: PhotographSegmenter, batch_size: int, n_threads: int
) -> dict[str, Any]:
    """Write the overlays of all frames as a video with the source's timing; return its entry in ``segments.json``.

    Args:
        path: the video.
        target: the .mp4 file to write.
        photographs: computes label maps.
        batch_size: most frames that are computed together.
        n_threads: threads that prepare frames, and as many that draw overlays, while the model computes.

    Raises:
        DataError: the video is damaged, cut off or without frames, or the target cannot be written.
    """

    def drawn(frame: tuple[Fraction, Prepared, np.ndarray]) -> tuple[Fraction, np.ndarray, dict[str, float]]:
        time, prepared, clusters = frame
        legend = photographs.legend
        ids = legend.ids(clusters)
        return time, overlay(prepared.photograph, ids, legend.classes.palette), legend.shares(ids)

    entry: dict[str, Any] = {"size": [], "frames": 0, "files": {"overlay": target.name}, "shares": {}}
    totals: dict[str, float] = entry["shares"]
    ahead = batch_size + n_threads
    with video_writer(target) as write:
        seen = ordered(lambda frame: (frame[0], photographs.prepare(frame[1])), read_frames(path), n_threads, ahead)
        for time, pixels, shares in ordered(drawn, photographs.segmented(seen, batch_size), n_threads, ahead):
            write(pixels, time)
            entry |= {"size": [pixels.shape[1], pixels.shape[0]], "frames": entry["frames"] + 1}
            for class_name, share in shares.items():
                totals[class_name] = totals.get(class_name, 0.0) + share
    return entry | {"shares": {class_name: round(total / entry["frames"], 6) for class_name, total in totals.items()}}


def read_frames(path: Path) -> Iterator[tuple[Fraction, Image.Image]]:
    """Yield the time in seconds and the RGB pixels of every frame, in order, upright and of one size.

    Raises:
        DataError: the file is no video, is damaged, or ends before its stated end.
    """
    n_frames = 0
    try:
        with av.open(_url(path)) as container, tqdm(desc=path.name, unit="frame", leave=False) as progress:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise ValueError("no video in it")
            stream.thread_type = "AUTO"
            progress.total = stream.frames or None
            end = start = Fraction(container.start_time or 0, av.time_base)
            for packet in container.demux(stream, *container.streams.audio):
                if packet.is_corrupt:
                    raise ValueError("it is cut off")
                parts: Sequence[Any] = packet.decode() if packet.stream is stream else [packet]
                for part in parts:
                    time: Fraction = end if part.pts is None else part.pts * part.time_base
                    end = max(end, time + (part.duration or 0) * part.time_base)
                    if isinstance(part, av.VideoFrame):
                        pixels = part.to_ndarray(format="rgb24", width=stream.width, height=stream.height)
                        yield time, Image.fromarray(np.rot90(pixels, part.rotation // 90))
                        n_frames += 1
                        progress.update()
            # Where a file ends between two frames, the demuxer reports no error. Stated lengths are not exact.
            length = Fraction(container.duration or 0, av.time_base)
            if start + length - end > min(length / 10, Fraction(1)):
                raise ValueError("it is cut off")
            if n_frames == 0:
                raise ValueError("no frame in it")
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: unreadable after {n_frames} frames ({reason}); repair or remove it") from error


@contextmanager
def video_writer(path: Path) -> Iterator[Callable[[np.ndarray, Fraction], None]]:
    """Open an .mp4 file (H.264) and yield a function that appends one H×W×3 uint8 frame, given its time in seconds.

    The last frame is shown as long as the one before it.

    Raises:
        DataError: the file cannot be written.
    """
    with written_atomically(path) as temporary:
        try:
            with av.open(_url(temporary), "w", format="mp4") as container:
                # With B-frames, a video of variable rate would state too short a length.
                stream = container.add_stream("libx264", options={"bf": "0"})
                stream.codec_context.time_base, stream.pix_fmt = CLOCK, "yuv420p"
                times: list[Fraction] = []

                def write(pixels: np.ndarray, time: Fraction) -> None:
                    # H.264 needs even sides.
                    even = np.pad(pixels, ((0, len(pixels) % 2), (0, pixels.shape[1] % 2), (0, 0)))
                    if not times:
                        stream.height, stream.width = even.shape[:2]
                    times.append(time)
                    frame = av.VideoFrame.from_ndarray(even, "rgb24")
                    frame.pts, frame.time_base = round((time - times[0]) / CLOCK), CLOCK
                    container.mux(stream.encode(frame))

                yield write
                for packet in stream.encode():
                    packet.duration = round((times[-1] - times[-2]) / CLOCK) if len(times) > 1 else packet.duration
                    container.mux(packet)
        except av.FFmpegError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _url(path: Path) -> str:
    """The file as a URL, so that its name is not read as a protocol."""
    return f"file:{path}"
