"""Features of images of any size: padding to whole patches, the mirrored copy, and blended windows for large images."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Features = Callable[[Tensor], Tensor]


def padded_to_patches(img: Tensor, patch_size: int) -> Tensor:
    """Repeat the last row and column of B×3×H×W until both sides are multiples of ``patch_size``."""
    height, width = img.shape[2:]
    return F.pad(img, (0, -width % patch_size, 0, -height % patch_size), mode="replicate")


def windowed(features: Features, img: Tensor, window: int, patch_size: int) -> Tensor:
    """Features of overlapping windows of an image, blended on the patch grid.

    Neighbouring windows overlap by half. A window's weight is highest in its middle and lowest at its border. Memory
    holds the features of one window and the whole map.

    Args:
        features: B×3×window×window → B×C×h×w.
        img: B×3×H×W, with H and W multiples of ``patch_size``.
        window: side in pixels, a multiple of ``patch_size``; an image side shorter than this is not split.
        patch_size: side of a patch in pixels.

    Returns:
        B×C×(H/patch_size)×(W/patch_size); an image no larger than a window is passed to ``features`` whole.
    """
    rows, columns = (list(_spans(side // patch_size, window // patch_size)) for side in img.shape[2:])
    if len(rows) == len(columns) == 1:
        return features(img)
    total, weights = img.new_zeros(()), img.new_zeros(1, 1, rows[-1].stop, columns[-1].stop)
    for row in rows:
        for column in columns:
            top, bottom, left, right = (patch_size * end for end in (row.start, row.stop, column.start, column.stop))
            part = features(img[:, :, top:bottom, left:right]).float()
            weight = _tent(part.shape[2], part)[:, None] * _tent(part.shape[3], part)
            if total.ndim == 0:
                total = part.new_zeros(*part.shape[:2], *weights.shape[2:])
            total[:, :, row, column] += part * weight
            weights[:, :, row, column] += weight
    return total / weights


def _spans(length: int, window: int) -> Iterator[slice]:
    """Overlapping spans of ``window`` patches that cover ``length`` patches; the last span ends at ``length``."""
    if length <= window:
        yield slice(0, length)
        return
    for start in range(0, length - window, max(window // 2, 1)):
        yield slice(start, start + window)
    yield slice(length - window, length)


def _tent(length: int, like: Tensor) -> Tensor:
    """``length`` triangular weights: 1 at both ends, one more for each patch towards the middle."""
    ramp = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    return torch.minimum(ramp, ramp.flip(0))


def any_size_features(
    features: Features, img: Tensor, patch_size: int, window: int | None, flip: bool = True
) -> Tensor:
    """Features of an image of any size, padded to whole patches.

    Args:
        features: B×3×H×W → B×C×h×w, for H and W multiples of the patch size.
        img: B×3×H×W.
        patch_size: side of a patch in pixels.
        window: side in pixels of the windows that larger images are split into; None processes every image whole.
        flip: average them with the mirror image's features, mirrored back (docs/method.md §9).

    Returns:
        B×C×⌈H/patch_size⌉×⌈W/patch_size⌉.
    """

    def view_features(view: Tensor) -> Tensor:
        return features(view) if window is None else windowed(features, view, window, patch_size)

    padded = padded_to_patches(img, patch_size)
    if not flip:
        return view_features(padded)
    return (view_features(padded) + view_features(padded.flip(dims=[3])).flip(dims=[3])) / 2
