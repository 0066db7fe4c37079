"""Frames of video files, and videos of overlays: all frames once, as long as the source, none over another."""

import shutil
import subprocess

import numpy as np
import pytest

from eagle.segmentation.video import frames, open_video, video_writer

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def probed(video):
    """Frames and seconds of a video file."""
    entries = "stream=nb_read_frames,duration"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "csv=p=0", str(video)]
    seconds, n_frames = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split(",")
    return int(n_frames), float(seconds)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames__of_a_variable_rate_come_once_and_last_as_long_as_they_did(tmp_path, suffix):
    """A phone's video: thirty frames in the first second, five in the next, the last of them after 1.8 s."""
    made, source, copy = tmp_path / "made.mkv", tmp_path / f"phone{suffix}", tmp_path / "copy.mp4"
    thinned = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=30:duration=2", "-vf", r"select='lt(t\,1)+not(mod(n\,6))'"]
    subprocess.run(["ffmpeg", "-v", "error", *thinned, str(made)], check=True)
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(made), "-c", "copy", str(source)], check=True)
    video = open_video(source)
    images = list(frames(video))
    assert len(images) == video.n_frames == 35
    with video_writer(copy, video.size, video.rate) as write:
        for image in images:
            write(np.asarray(image))
    n_frames, seconds = probed(copy)
    assert n_frames == 35
    assert seconds == pytest.approx(1.8, abs=0.1)
