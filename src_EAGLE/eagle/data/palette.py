"""Colours of classes: made up for those that come without any, and put on label maps."""

import colorsys

import numpy as np

from eagle.data.dataset import VOID

VOID_COLOR = (0, 0, 0)

# Successive hues a golden ratio apart never come close to each other.
GOLDEN_RATIO = 0.6180339887498949


def distinct_palette(n: int) -> np.ndarray:
    """n×3 uint8 RGB colours that differ in hue, and from one round of hues to the next in brightness."""
    colors = [
        colorsys.hsv_to_rgb((i * GOLDEN_RATIO) % 1, (0.85, 0.55, 0.95)[i % 3], (0.95, 0.75, 0.55)[i // 3 % 3])
        for i in range(n)
    ]
    return (np.array(colors).reshape(n, 3) * 255).round().astype(np.uint8)


def colored(ids: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """H×W class ids → H×W×3 uint8; void (−1) is black."""
    table = np.vstack([palette, VOID_COLOR]).astype(np.uint8)
    return table[np.where(ids == VOID, len(palette), ids)]
