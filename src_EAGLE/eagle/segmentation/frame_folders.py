"""The overlays of a folder of frames, joined to a video."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.errors import DataError
from eagle.segmentation.video import video_writer


def join_overlays(images: Mapping[str, Any], output_dir: Path, rate: float) -> dict[str, str]:
    """Write ``FOLDER_overlay.mp4`` for each folder with several images, its frames in the order of ``images``.

    Args:
        images: as ``segments.json`` lists them; those without an overlay PNG are passed over.
        output_dir: folder of the overlays and of the videos.
        rate: frames a second.

    Returns:
        The videos' names by the frames' folder.

    Raises:
        DataError: there is no ffmpeg, or the images of a folder differ in size.
    """
    overlays: dict[Path, list[Path]] = {}
    for source, entry in images.items():
        if entry["files"]["overlay"].endswith(".png"):
            overlays.setdefault(Path(source).parent, []).append(output_dir / entry["files"]["overlay"])
    written: dict[str, str] = {}
    for folder, frames in overlays.items():
        if len(frames) > 1:
            path = output_dir / f"{folder.resolve().name}_overlay.mp4"
            _write_video(path, frames, rate)
            written[str(folder)] = path.name
    return written


def _write_video(path: Path, frames: list[Path], rate: float) -> None:
    with Image.open(frames[0]) as first:
        size = first.size
    with video_writer(path, size, str(rate)) as write:
        for frame in tqdm(frames, path.name, unit="frame", leave=False):
            with Image.open(frame) as image:
                if image.size != size:
                    raise DataError(
                        f"{frame}: {image.width}×{image.height} pixels, the frames before it {size[0]}×{size[1]}; a "
                        "video has frames of one size: leave frame_rate out"
                    )
                write(np.asarray(image))
