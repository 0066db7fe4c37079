"""Feature maps of images of any size: padded to whole patches, and large ones window by window, blended."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Features = Callable[[Tensor], Tensor]


def padded_to_patches(img: Tensor, patch_size: int) -> Tensor:
    """B×3×H×W with its last row and column repeated until both sides are multiples of ``patch_size``."""
    height, width = img.shape[2:]
    return F.pad(img, (0, -width % patch_size, 0, -height % patch_size), mode="replicate")


def windowed(features: Features, img: Tensor, window: int, patch_size: int) -> Tensor:
    """Features of overlapping windows of an image, blended on the grid of patches.

    Windows lie half a window apart, each weighs most in its middle and least at its border; memory for features is that
    of one window and of the whole map.

    Args:
        features: B×3×window×window → B×C×h×w.
        img: B×3×H×W, multiples of ``patch_size``.
        window: side in pixels, a multiple of ``patch_size``; a shorter side of the image is taken whole.
        patch_size: pixels a patch.

    Returns:
        B×C×(H/patch_size)×(W/patch_size); for an image no larger than a window, its features as they are.
    """
    rows, columns = (list(_spans(side // patch_size, window // patch_size)) for side in img.shape[2:])
    if len(rows) == len(columns) == 1:
        return features(img)
    total, weights = img.new_zeros(()), img.new_zeros(1, 1, rows[-1].stop, columns[-1].stop)
    for row in rows:
        for column in columns:
            pixels = img[:, :, _pixels(row, patch_size), _pixels(column, patch_size)]
            part = features(pixels).float()
            weight = _tent(part.shape[2], part)[:, None] * _tent(part.shape[3], part)
            if total.ndim == 0:
                total = part.new_zeros(*part.shape[:2], *weights.shape[2:])
            total[:, :, row, column] += part * weight
            weights[:, :, row, column] += weight
    return total / weights


def _spans(length: int, window: int) -> Iterator[slice]:
    """Overlapping spans of ``window`` patches that cover ``length`` of them, the last one flush with the end."""
    if length <= window:
        yield slice(0, length)
        return
    for start in range(0, length - window, max(window // 2, 1)):
        yield slice(start, start + window)
    yield slice(length - window, length)


def _pixels(patches: slice, patch_size: int) -> slice:
    return slice(patches.start * patch_size, patches.stop * patch_size)


def _tent(length: int, like: Tensor) -> Tensor:
    """Weights that rise by one a patch from both ends to the middle; ``length`` floats."""
    ramp = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    return torch.minimum(ramp, ramp.flip(0))
