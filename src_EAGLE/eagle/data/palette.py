"""Generate class palettes and colour label maps.

Palettes suit colour-blind readers: each next colour is the candidate whose smallest distance to the previous colours,
over normal and colour-blind vision, is largest.
"""

from functools import lru_cache

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from eagle.data.datasets.base import VOID

VOID_COLOR = (0, 0, 0)

# Dark blue and orange differ strongly in every simulated vision.
_FIRST_COLORS = ((0, 114, 178), (230, 159, 0))
_CANDIDATES_PER_CHANNEL = 16
# CIELAB ranges that exclude near-black (void), near-white, grey and glaring colours.
_LIGHTNESS = (35, 88)
_CHROMA = (25, 80)
# Linear RGB seen without red, green or blue cones (Machado, Oliveira and Fernandes 2009, severity 1).
_VISIONS = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
# Distance weights; a smaller weight constrains the choice more: normal vision most, rare tritanopia least.
_WEIGHTS = {"normal": 0.7, "protanopia": 1.0, "deuteranopia": 1.0, "tritanopia": 1.5}


def distinct_palette(n: int) -> np.ndarray:
    """n×3 uint8 RGB colours that differ from each other and from void in normal and colour-blind vision.

    A longer palette starts with the shorter one. About a dozen colours are easy to distinguish.
    """
    return np.array(_distinct_colors(n), dtype=np.uint8).reshape(n, 3)


def colored(ids: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Colour H×W class ids as H×W×3 uint8; void (−1) is black."""
    table = np.vstack([palette, VOID_COLOR]).astype(np.uint8)
    return table[np.where(ids == VOID, len(palette), ids)]


@lru_cache
def _distinct_colors(n: int) -> tuple[tuple[int, ...], ...]:
    candidates = _candidates()
    candidate_lab = {vision: _simulated_lab(candidates, vision) for vision in _VISIONS}
    distance = np.full(len(candidates), np.inf)
    chosen: list[tuple[int, ...]] = []
    color: tuple[int, ...] = VOID_COLOR
    while len(chosen) < n:
        for vision, lab in candidate_lab.items():
            previous = _simulated_lab(np.array([color]), vision)
            distance = np.minimum(distance, _WEIGHTS[vision] * deltaE_ciede2000(lab, previous))
        farthest = tuple(candidates[distance.argmax()].tolist())
        color = _FIRST_COLORS[len(chosen)] if len(chosen) < len(_FIRST_COLORS) else farthest
        chosen.append(color)
    return tuple(chosen)


def _candidates() -> np.ndarray:
    """m×3 RGB grid colours of moderate lightness and chroma."""
    steps = np.linspace(0, 255, _CANDIDATES_PER_CHANNEL).round().astype(int)
    colors = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=3).reshape(-1, 3)
    lightness, a, b = _simulated_lab(colors, "normal").T
    chroma = np.hypot(a, b)
    moderate = (lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1])
    return colors[moderate & (chroma >= _CHROMA[0]) & (chroma <= _CHROMA[1])]


def _simulated_lab(colors: np.ndarray, vision: str) -> np.ndarray:
    """CIELAB of m×3 RGB colours (0 to 255) as simulated for a vision, m×3."""
    rgb = colors / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(_VISIONS[vision]).T, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))
