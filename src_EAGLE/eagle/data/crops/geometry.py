"""Which parts of an image its crops are: the published five, or five drawn ones."""

from typing import NamedTuple

import numpy as np

from eagle.errors import ConfigError


class Box(NamedTuple):
    """A part of an image in pixels; right and bottom are exclusive, as for PIL's ``crop``."""

    left: int
    top: int
    right: int
    bottom: int


def five_boxes(width: int, height: int, ratio: float) -> list[Box]:
    """Corners top left, top right, bottom left, bottom right, and the centre, as torchvision's ``five_crop``.

    Args:
        width: of the image.
        height: of the image.
        ratio: a crop's side by the image's, rounded down to pixels.

    Raises:
        ConfigError: the ratio leaves no pixel.
    """
    w, h = _crop_size(width, height, ratio)
    right, bottom = width - w, height - h
    # Python's round, to the even neighbour of a half, is what torchvision's centre crop uses.
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (round(right / 2), round(bottom / 2))]
    return [Box(x, y, x + w, y + h) for x, y in corners]


def random_boxes(width: int, height: int, ratio: float, count: int, rng: np.random.Generator) -> list[Box]:
    """``count`` boxes of the same size at places drawn uniformly; raises ConfigError as five_boxes does."""
    w, h = _crop_size(width, height, ratio)
    xs = rng.integers(width - w, size=count, endpoint=True).tolist()
    ys = rng.integers(height - h, size=count, endpoint=True).tolist()
    return [Box(x, y, x + w, y + h) for x, y in zip(xs, ys, strict=True)]


def _crop_size(width: int, height: int, ratio: float) -> tuple[int, int]:
    size = int(width * ratio), int(height * ratio)
    if 0 in size:
        raise ConfigError(f"crop_ratio: {ratio} leaves nothing of an image of {width}×{height} pixels; raise it")
    return size
