"""Read the frames of a video file and write overlays as a video, with the ffmpeg program."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eagle.errors import DataError
from eagle.files import written_atomically

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")

# Relative difference from the measured rate up to which the stated one holds: containers round times to milliseconds.
RATE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Video:
    """Properties of a video file.

    Attributes:
        path: the file.
        size: (width, height) in pixels, as a player shows it.
        rate: average frames per second, as a fraction such as "30000/1001".
        n_frames: number of stored frames, including those that players skip.
    """

    path: Path
    size: tuple[int, int]
    rate: str
    n_frames: int


def open_video(path: Path) -> Video:
    """Read a video's properties with ffprobe, which reads the whole file but decodes nothing.

    Raises:
        DataError: ffmpeg is missing, or the file holds no video.
    """
    _require_ffmpeg(path)
    fields = "stream=width,height,avg_frame_rate:stream_side_data=rotation:packet=pts_time"
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", fields, "-of", "json", _url(path)]
    probed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  fixed words, no shell
    found = json.loads(probed.stdout or "{}") if probed.returncode == 0 else {}
    streams, packets = found.get("streams", []), found.get("packets", [])
    if not streams:
        raise DataError(f"{path}: holds no video that ffmpeg can read ({probed.stderr.strip()[:120]})")
    stream = streams[0]
    size = (int(stream["width"]), int(stream["height"]))
    turned = any(int(side.get("rotation", 0)) % 180 for side in stream.get("side_data_list", []))
    times = [float(packet["pts_time"]) for packet in packets if "pts_time" in packet]
    return Video(path, size[::-1] if turned else size, _average_rate(stream["avg_frame_rate"], times), len(packets))


def _average_rate(stated: str, times: Sequence[float]) -> str:
    """The stated frame rate, or the rate measured from the frame times (seconds) where the two disagree.

    Matroska states the initial rate of a variable-rate video; other files state none ("0/0").
    """
    numerator, denominator = map(int, stated.split("/"))
    span = max(times, default=0.0) - min(times, default=0.0)
    if span <= 0:
        return stated
    measured = (len(times) - 1) / span
    if abs(numerator - measured * denominator) < RATE_TOLERANCE * numerator:
        return stated
    return f"{Fraction(measured).limit_denominator(10_000)}"


def frames(video: Video) -> Iterator[Image.Image]:
    """Yield every stored frame once, as RGB and in order; raise DataError if the file is damaged."""
    width, height = video.size
    # As an input option, -r replaces the file's timestamps, by which ffmpeg would repeat and drop frames of a
    # variable-rate video. The option that prevents this differs between ffmpeg versions (-vsync, -fps_mode).
    command = ["ffmpeg", "-v", "error", "-r", video.rate, "-i", _url(video.path)]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    with subprocess.Popen(  # noqa: S603  fixed words, no shell
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            while len(pixels := process.stdout.read(width * height * 3)) == width * height * 3:
                yield Image.frombytes("RGB", (width, height), pixels)
        finally:
            process.stdout.close()
    if process.returncode and not pixels:
        raise DataError(f"{video.path}: ffmpeg stopped with status {process.returncode} before the video's end")


@contextmanager
def video_writer(path: Path, size: tuple[int, int], rate: str) -> Iterator[Any]:
    """Open an H.264 file and yield a function that appends one H×W×3 uint8 frame to it.

    Args:
        path: the .mp4 file, written under a temporary name.
        size: (width, height) of every frame.
        rate: frames per second.

    Raises:
        DataError: ffmpeg is missing or cannot write the file.
    """
    _require_ffmpeg(path)
    width, height = size
    with written_atomically(path) as temporary:
        command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        command += ["-r", rate, "-i", "-", "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
        command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", _url(temporary)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603  fixed words, no shell
            assert process.stdin is not None
            assert process.stderr is not None
            stdin = process.stdin
            with suppress(BrokenPipeError):
                yield lambda pixels: stdin.write(np.ascontiguousarray(pixels, dtype=np.uint8).tobytes())
                stdin.close()
            reason = process.stderr.read().decode(errors="replace")
        if process.returncode:
            raise DataError(f"{path}: ffmpeg cannot write it ({' '.join(reason.split())[:160]})")


def _url(path: Path) -> str:
    """The file as a URL, so that ffmpeg reads its name neither as a protocol nor as an option."""
    return f"file:{path}"


def _require_ffmpeg(path: Path) -> None:
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        raise DataError(f"{path}: videos need the ffmpeg program, which is not installed")
