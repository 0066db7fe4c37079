"""Frames of a video file, and overlays as a video, through the ffmpeg program."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eagle.errors import DataError
from eagle.files import written_atomically

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


@dataclass(frozen=True)
class Video:
    """A video file's shape.

    Attributes:
        path: the file.
        size: (width, height) in pixels, as shown.
        rate: frames a second, a fraction such as "30000/1001".
        n_frames: frames, as far as the file says; None where it does not.
    """

    path: Path
    size: tuple[int, int]
    rate: str
    n_frames: int | None


def open_video(path: Path) -> Video:
    """Ask ffprobe for a video's shape; raises DataError where there is no ffmpeg or no video in the file."""
    _require_ffmpeg(path)
    fields = "stream=width,height,avg_frame_rate,nb_frames:stream_side_data=rotation"
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", fields, "-of", "json", _url(path)]
    probed = subprocess.run(command, capture_output=True, text=True, check=False)
    streams = json.loads(probed.stdout or "{}").get("streams", []) if probed.returncode == 0 else []
    if not streams:
        raise DataError(f"{path}: holds no video that ffmpeg can read ({probed.stderr.strip()[:120]})")
    stream = streams[0]
    size = (int(stream["width"]), int(stream["height"]))
    turned = any(int(side.get("rotation", 0)) % 180 for side in stream.get("side_data_list", []))
    n_frames = int(stream["nb_frames"]) if str(stream.get("nb_frames", "")).isdigit() else None
    return Video(path, size[::-1] if turned else size, stream["avg_frame_rate"], n_frames)


def frames(video: Video) -> Iterator[Image.Image]:
    """RGB frames in order; raises DataError where the file is damaged before its end."""
    width, height = video.size
    command = ["ffmpeg", "-v", "error", "-i", _url(video.path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
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
    """A function that takes H×W×3 uint8 frames of one size and appends them to an H.264 file.

    Args:
        path: the .mp4 file, written under a temporary name.
        size: (width, height).
        rate: frames a second.

    Raises:
        DataError: there is no ffmpeg, or it refuses.
    """
    _require_ffmpeg(path)
    width, height = size
    with written_atomically(path) as temporary:
        command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        command += ["-r", rate, "-i", "-", "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
        command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", _url(temporary)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            stdin = process.stdin
            try:
                yield lambda pixels: stdin.write(np.ascontiguousarray(pixels, dtype=np.uint8).tobytes())
                stdin.close()
                reason = process.stderr.read().decode(errors="replace")
            except BrokenPipeError:
                reason = process.stderr.read().decode(errors="replace")
        if process.returncode:
            raise DataError(f"{path}: ffmpeg cannot write it ({' '.join(reason.split())[:160]})")


def _url(path: Path) -> str:
    """A file's name that ffmpeg takes for neither a protocol nor an option."""
    return f"file:{path}"


def _require_ffmpeg(path: Path) -> None:
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        raise DataError(f"{path}: videos need the ffmpeg program, which is not installed")
