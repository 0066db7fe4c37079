"""Compose mosaic scenes: a background of smooth regions and one to three silhouettes, all with photographic textures.

Positions and lengths are fractions of the scene's side, independent of its size in pixels.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from skimage.transform import AffineTransform, warp

from eagle.data.mosaics.sources import CLASSES, Textures

# Smallest share of a scene's pixels that each of its classes must have.
MIN_SHARE = 0.01


def compose_scene(textures: Textures, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Compose a scene of three to six classes.

    Args:
        textures: crops of each class, float32 h×w×3 in [0, 1], in the order of ``CLASSES``.
        size: side of the scene in pixels.
        rng: the only source of randomness.

    Returns:
        The image, uint8 size×size×3, and its class ids, uint8 size×size. A pixel's id is the class whose shape contains
        the pixel centre; the image is anti-aliased over about half a pixel.
    """
    labels = draw_layout(size, rng)
    image = np.zeros((size, size, 3), np.float32)
    for class_id in np.unique(labels):
        share = gaussian_filter((labels == class_id).astype(np.float32), 0.5)
        image += share[..., None] * _texture(textures[class_id], size, rng)
    image = _add_light_and_noise(image, rng)
    return np.round(image * 255).astype(np.uint8), labels


def draw_layout(size: int, rng: np.random.Generator) -> np.ndarray:
    """Class ids, uint8 size×size; each class of the scene covers at least ``MIN_SHARE`` of the pixels."""
    while True:  # in a few draws silhouettes hide a class
        labels, chosen = _draw_candidate(size, rng)
        shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
        if shares[chosen].min() >= MIN_SHARE:
            return labels


def _draw_candidate(size: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    above = [class_id for class_id, entry in enumerate(CLASSES) if entry.place == "above"]
    below = [class_id for class_id, entry in enumerate(CLASSES) if entry.place == "below"]
    background = [int(rng.choice(above)), *map(int, rng.choice(below, rng.integers(1, 3), replace=False))]
    fillings = [class_id for class_id, entry in enumerate(CLASSES) if entry.silhouette and class_id not in background]
    objects = [int(class_id) for class_id in rng.choice(fillings, rng.integers(1, 4), replace=False)]

    labels = _background(background, size, rng)
    x, y = _pixel_centres(size)
    for class_id in objects:
        centre = rng.uniform(0.2, 0.8, 2)
        radius = rng.uniform(0.12, 0.24)
        silhouette = SILHOUETTES[rng.integers(len(SILHOUETTES))]
        labels[silhouette((x - centre[0]) / radius, (y - centre[1]) / radius, rng)] = class_id
    return labels, background + objects


def _background(classes: list[int], size: int, rng: np.random.Generator) -> np.ndarray:
    """Argmax over one smooth random field per class; a gradient favours the first class above the horizon."""
    _, y = _pixel_centres(size)
    horizon = rng.uniform(0.3, 0.6)
    fields = [_smooth_field(size, rng) for _ in classes]
    fields[0] += 8 * (horizon - y)
    return np.array(classes, np.uint8)[np.argmax(fields, axis=0)]


def _smooth_field(size: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian random field, size×size, of variance 1 at its nodes; correlation length about size / 4."""
    return zoom(rng.standard_normal((4, 4)), size / 4, order=3, mode="nearest", grid_mode=True)


def _blob(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Circle whose radius varies smoothly with the angle."""
    angle = np.arctan2(y, x)
    radius = np.ones_like(angle)
    for waves in range(2, 6):
        radius += rng.normal(0, 0.25 / waves) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(x, y) <= radius


def _superellipse(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Randomly rotated shape between an ellipse and a box with round corners."""
    angle, aspect, power = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0), rng.uniform(2.0, 6.0)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.abs(along) ** power + np.abs(across / aspect) ** power <= 1


def _stem_and_crown(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blob-shaped crown on an upright stem that widens downwards."""
    width = rng.uniform(0.12, 0.22)
    stem = (np.abs(x) <= width * (1 + 0.4 * y)) & (y >= 0) & (y <= 1.3)
    return _blob(x / 0.9, (y + 0.4) / 0.75, rng) | stem


SILHOUETTES: tuple[Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray], ...] = (
    _blob,
    _superellipse,
    _stem_and_crown,
)


def _texture(crops: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Random affine view of one crop, size×size×3, mirrored beyond its edges, with varied brightness and colour.

    It reads no pixels outside the crop, so training scenes never show a val crop.
    """
    crop = crops[int(rng.integers(len(crops)))]
    height, width = crop.shape[:2]
    flip = rng.choice([-1.0, 1.0])
    step = 1 / rng.uniform(0.9, 1.6)
    to_crop = (
        AffineTransform(translation=(-size / 2, -size / 2))
        + AffineTransform(scale=(flip * step, step), rotation=rng.uniform(-0.5, 0.5))
        + AffineTransform(translation=rng.uniform(0, 1, 2) * (width, height))
    )
    view = warp(crop, to_crop, output_shape=(size, size), order=1, mode="symmetric")
    return view * rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, 3)


def _add_light_and_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a linear light gradient and sensor noise to the whole scene; values in [0, 1]."""
    x, y = _pixel_centres(image.shape[0])
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    light = 1 + strength * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    noise = rng.normal(0, 0.01, image.shape)
    return np.clip(image * light[..., None] * rng.uniform(0.9, 1.05) + noise, 0, 1)


def _pixel_centres(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x and y of the pixel centres, each size×size, in (0, 1)."""
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(centres, centres)
    return x, y
