"""Join the overlays of a folder of frames to a video."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.errors import DataError
from eagle.inference.video import video_writer


def join_overlays(images: Mapping[str, Any], output_dir: Path, rate: float) -> dict[str, str]:
    """Write ``FOLDER_overlay.mp4`` for each folder with several images, its frames in the order of ``images``.

    A video name that another folder or a video in ``images`` already uses gets a number.

    Args:
        images: the ``images`` of ``segments.json``; entries without an overlay PNG are skipped.
        output_dir: folder of the overlays and of the videos.
        rate: frames per second.

    Returns:
        Each video's file name, by the folder of its frames.

    Raises:
        DataError: ffmpeg is missing, or the images of a folder differ in size.
    """
    overlays: dict[Path, list[Path]] = {}
    for source, entry in images.items():
        if entry["files"]["overlay"].endswith(".png"):
            overlays.setdefault(Path(source).parent, []).append(output_dir / entry["files"]["overlay"])
    folders = [folder for folder, frames in overlays.items() if len(frames) > 1]
    names = _video_names(folders, {entry["files"]["overlay"] for entry in images.values()})
    for folder, name in zip(folders, names, strict=True):
        _write_video(output_dir / name, overlays[folder], rate)
    return dict(zip(map(str, folders), names, strict=True))


def _video_names(folders: Sequence[Path], taken: AbstractSet[str]) -> list[str]:
    """``FOLDER_overlay.mp4`` for each folder, with a number if the name is already used in any letter case."""
    used = {name.lower() for name in taken}
    names: list[str] = []
    for folder in folders:
        stem = folder.resolve().name
        candidates = chain([f"{stem}_overlay.mp4"], (f"{stem}_{number}_overlay.mp4" for number in count(2)))
        names.append(next(name for name in candidates if name.lower() not in used))
        used.add(names[-1].lower())
    return names


def _write_video(path: Path, frames: list[Path], rate: float) -> None:
    with Image.open(frames[0]) as first:
        size = first.size
    with video_writer(path, size, str(rate)) as write:
        for frame in tqdm(frames, path.name, unit="frame", leave=False):
            with Image.open(frame) as image:
                if image.size != size:
                    raise DataError(
                        f"{frame}: {image.width}×{image.height} pixels, the frames before it {size[0]}×{size[1]}; a "
                        "video needs frames of one size: leave frame_rate out"
                    )
                write(np.asarray(image))
