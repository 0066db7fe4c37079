"""Crop boxes of an image: the five of the released code, or random ones."""

from typing import NamedTuple

import numpy as np

from eagle.errors import ConfigError


class Box(NamedTuple):
    """Rectangle in pixels; right and bottom are exclusive, as in PIL's ``crop``."""

    left: int
    top: int
    right: int
    bottom: int


def five_boxes(width: int, height: int, ratio: float) -> list[Box]:
    """Top left, top right, bottom left, bottom right and centre crops, as in torchvision's ``five_crop``.

    Args:
        width: image width.
        height: image height.
        ratio: crop side divided by image side; crop sides are rounded down to pixels.

    Raises:
        ConfigError: a crop would have no pixels.
    """
    w, h = _crop_size(width, height, ratio)
    right, bottom = width - w, height - h
    # Halves round to even, as in torchvision's centre crop.
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (round(right / 2), round(bottom / 2))]
    return [Box(x, y, x + w, y + h) for x, y in corners]


def random_boxes(width: int, height: int, ratio: float, count: int, rng: np.random.Generator) -> list[Box]:
    """``count`` boxes of the same size at uniformly random positions; raises ConfigError like five_boxes."""
    w, h = _crop_size(width, height, ratio)
    xs = rng.integers(width - w, size=count, endpoint=True).tolist()
    ys = rng.integers(height - h, size=count, endpoint=True).tolist()
    return [Box(x, y, x + w, y + h) for x, y in zip(xs, ys, strict=True)]


def _crop_size(width: int, height: int, ratio: float) -> tuple[int, int]:
    size = int(width * ratio), int(height * ratio)
    if 0 in size:
        raise ConfigError(f"crop_ratio: {ratio} leaves no pixels of a {width}×{height} image; increase it")
    return size
