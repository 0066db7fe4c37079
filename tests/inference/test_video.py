"""Videos: every frame once, the source's timing, nothing finished from a damaged file."""

from fractions import Fraction

import av
import numpy as np
import pytest
from test_folders import config, write_checkpoint

from eagle.errors import DataError
from eagle.inference.folders import segment
from eagle.inference.video import read_frames, video_writer
from miniatures import picture


def write_video(path, n_frames=4, codec="libx264", size=(47, 35), matrix=None):
    """Five frames a second; the index of an .mp4 comes first, as in files of the web."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p" if codec != "libx264" else "yuv444p"
        stream.set_display_matrix(matrix)
        for number in range(n_frames):
            pixels = picture(number, size)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def probed(path):
    """Width, height, frames and seconds of a video file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        n_frames = sum(1 for _ in container.decode(stream))
        return stream.width, stream.height, n_frames, container.duration / av.time_base


def test_segment__videos_become_overlay_videos_and_damaged_ones_are_left_out(tmp_path):
    clips = [write_video(tmp_path / name, n_frames=5) for name in ("clip.mp4", "cut.mp4")]
    clips[1].write_bytes(clips[1].read_bytes()[:-2000])
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    cfg = config(write_checkpoint(tmp_path / "best.ckpt"), tmp_path, tmp_path / "masks")
    content = segment(cfg)
    entry = content["images"][str(clips[0])]
    assert (entry["frames"], entry["size"]) == (5, [47, 35])
    assert sum(entry["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert probed(tmp_path / "masks/clip_overlay.mp4") == (48, 36, 5, 1.0), "sides made even as H.264 asks"
    assert list(content["unreadable"]) == [str(clips[1]), str(tmp_path / "no.mp4")]
    assert [path.name for path in (tmp_path / "masks").glob("*.mp4")] == ["clip_overlay.mp4"]
    assert segment(cfg) == content | {"already_done": 1}


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")]
)
@pytest.mark.parametrize("share", [0.35, 0.99])
def test_read_frames__a_file_cut_off_anywhere_is_an_error(tmp_path, suffix, codec, share):
    path = write_video(tmp_path / f"clip.{suffix}", codec=codec, size=(64, 48))
    assert len(list(read_frames(path))) == 4
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"clip\.{suffix}: unreadable after [0-3] frames \(.*\); repair or remove it"):
        list(read_frames(path))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames__variable_rate_keeps_frames_and_times(tmp_path, suffix):
    """A phone's video: thirty frames in the first second, five in the next, the last of them after 1.8 s."""
    times = [*(Fraction(i, 30) for i in range(30)), *(1 + Fraction(i, 5) for i in range(5))]
    made, copy = tmp_path / "made.mp4", tmp_path / f"copy{suffix}"
    with video_writer(made) as write:
        for number, time in enumerate(times):
            write(picture(number, (64, 48)), 7 + time)
    with av.open(str(made)) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    frames = list(read_frames(copy))
    assert [float(time) for time, _ in frames] == pytest.approx([float(time) for time in times], abs=1e-3)
    for number in (0, 34):
        assert np.abs(np.asarray(frames[number][1], dtype=int) - picture(number, (64, 48))).mean() < 12
    assert probed(made) == (64, 48, 35, pytest.approx(2.0, abs=1e-3))


def test_read_frames__turned_upright(tmp_path):
    """The display matrix of a phone held upright turns clockwise."""
    path = write_video(tmp_path / "phone.mp4", size=(64, 48), matrix=[0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30])
    _, image = next(read_frames(path))
    assert np.abs(np.asarray(image, dtype=int) - np.rot90(picture(0, (64, 48)), -1)).mean() < 12
