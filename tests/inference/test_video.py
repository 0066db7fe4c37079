"""Read and write videos: every frame once, the duration of the source, no file overwritten."""

import shutil
import subprocess

import numpy as np
import pytest

from eagle.inference.frame_folders import join_overlays
from eagle.inference.video import frames, open_video, video_writer
from miniatures import picture, save

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def probed(video):
    """Frames and seconds of a video file."""
    entries = "stream=nb_read_frames,duration"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "csv=p=0", str(video)]
    seconds, n_frames = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split(",")
    return int(n_frames), float(seconds)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames__variable_rate_keeps_frames_and_duration(tmp_path, suffix):
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


def test_join_overlays__equal_names_get_numbers(tmp_path):
    """``a/clip.mp4`` already has an overlay video, and two folders have the same name."""
    images = {"a/clip.mp4": {"files": {"overlay": "clip_overlay.mp4"}}}
    for number, (folder, n_frames) in enumerate({"a/clip": 2, "b/clip": 3, "b/walk": 4}.items()):
        for frame in range(n_frames):
            overlay = f"{number}_{frame}_overlay.png"
            save(tmp_path / overlay, picture(frame))
            images[f"{folder}/{frame}.png"] = {"files": {"overlay": overlay}}
    (tmp_path / "clip_overlay.mp4").write_bytes(b"of the video")
    videos = join_overlays(images, tmp_path, 5)
    assert videos == {"a/clip": "clip_2_overlay.mp4", "b/clip": "clip_3_overlay.mp4", "b/walk": "walk_overlay.mp4"}
    assert [probed(tmp_path / name)[0] for name in videos.values()] == [2, 3, 4]
    assert (tmp_path / "clip_overlay.mp4").read_bytes() == b"of the video"
