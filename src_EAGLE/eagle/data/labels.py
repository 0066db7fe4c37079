"""Names, colours and images of label maps: class maps, palettes, id images and overlays.

Palettes suit colour-blind readers: each next colour is the candidate whose smallest distance to the previous colours,
over normal and colour-blind vision, is largest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.measure import label

from eagle.data.datasets.base import VOID, Classes
from eagle.errors import DataError
from eagle.files import written_atomically

NO_CLASS = -1
NO_CLASS_NAME = "no class"
# Largest number of ids in 8 and 16 bits per pixel; the highest value marks pixels without a class.
MOST_BYTE_IDS, MOST_IDS = 255, 65535
OVERLAY_OPACITY = 0.5
# Largest share of an image of a region that gets no outline.
SPECK = 5e-4
VOID_COLOR = (0, 0, 0)

# Dark blue and orange differ strongly in every simulated vision.
_FIRST_COLORS = ((0, 114, 178), (230, 159, 0))
_CANDIDATES_PER_CHANNEL = 16
# CIELAB ranges that exclude near-black (void), near-white, grey and glaring colours.
_LIGHTNESS = (35, 88)
_CHROMA = (25, 80)
# Linear RGB seen without red, green or blue cones (Machado, Oliveira and Fernandes 2009, severity 1).
# Weights multiply distances: a smaller one constrains the choice more, normal vision most, rare tritanopia least.
_NORMAL = (0.7, ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
_PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
_DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
_TRITANOPIA = ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900))
_VISIONS = (_NORMAL, (1.0, _PROTANOPIA), (1.0, _DEUTERANOPIA), (1.5, _TRITANOPIA))


@dataclass(frozen=True)
class ClassMap:
    """Classes and, by name of each scored map ("linear", "cluster+crf", …), a class id per cluster, −1 for no class."""

    classes: Classes
    assignments: dict[str, list[int]] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON and YAML: ``classes`` (a list of name and RGB color) and ``assignments``."""
        colors = self.classes.palette.tolist()
        named = [{"name": name, "color": color} for name, color in zip(self.classes.names, colors, strict=True)]
        return {"classes": named, "assignments": self.assignments}


def class_map_from_plain(plain: Mapping[str, Any]) -> ClassMap:
    """The inverse of ``ClassMap.to_plain``.

    Raises:
        KeyError, TypeError, ValueError: the data has another structure, a colour is invalid, or a cluster is assigned
            to a class that does not exist.
    """
    names = tuple(str(entry["name"]) for entry in plain["classes"])
    colors = np.array([entry["color"] for entry in plain["classes"]], dtype=int).reshape(len(names), 3)
    if colors.size and not 0 <= colors.min() <= colors.max() <= 255:
        raise ValueError("classes: a colour is not three numbers from 0 to 255")
    assignments = {str(name): [int(i) for i in classes] for name, classes in dict(plain["assignments"]).items()}
    for name, classes in assignments.items():
        if any(not NO_CLASS <= i < len(names) for i in classes):
            raise ValueError(f"assignments of {name}: a class id is not from {NO_CLASS} to {len(names) - 1}")
    return ClassMap(Classes(names, colors.astype(np.uint8)), assignments)


def numbered_clusters(n_clusters: int) -> Classes:
    """Placeholder classes for unmatched clusters: ``cluster 0``, ``cluster 1``, …, each with a distinct colour."""
    return Classes(tuple(f"cluster {i}" for i in range(n_clusters)), distinct_palette(n_clusters))


def named_clusters(path: Path, map_name: str, n_clusters: int) -> ClassMap:
    """Read the class map of ``map_name`` from a UTF-8 text file with one class name per cluster, one a line.

    Equal names are one class; an empty line, or ``no class``, is a cluster without a class. Class ids follow first
    appearance.

    Raises:
        DataError: the file cannot be read, contains no name, or has another number of lines.
    """
    lines = ["" if line == NO_CLASS_NAME else line for line in name_lines(path)]
    if len(lines) != n_clusters:
        raise DataError(
            f"{path}: {len(lines)} lines for {n_clusters} clusters; write one line each, empty for no class"
        )
    names = tuple(dict.fromkeys(line for line in lines if line))
    if not names:
        raise DataError(f"{path}: contains no class name; write one line per cluster")
    assignment = [names.index(line) if line else NO_CLASS for line in lines]
    return ClassMap(Classes(names, distinct_palette(len(names))), {map_name: assignment})


def name_lines(path: Path) -> list[str]:
    """The lines of a text file of cluster names, stripped; raises DataError if it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error


def distinct_palette(n: int) -> np.ndarray:
    """n×3 uint8 RGB colours that differ from each other and from void in normal and colour-blind vision.

    A longer palette starts with the shorter one. About a dozen colours are easy to distinguish.
    """
    return np.array(_distinct_colors(n), dtype=np.uint8).reshape(n, 3)


def colored(ids: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Colour H×W class ids as H×W×3 uint8; void (−1) is black."""
    table = np.vstack([palette, VOID_COLOR]).astype(np.uint8)
    return table[np.where(ids == VOID, len(palette), ids)]


def write_ids(path: Path, ids: np.ndarray, n_ids: int) -> None:
    """Write H×W ids in [0, n_ids) as a greyscale PNG: 8 bits for up to 255 ids, else 16 bits, so all images share it.

    −1 (no class) is written as the highest value, 255 or 65535.
    """
    write_image(path, _id_image(ids, n_ids))


def write_colored_ids(path: Path, ids: np.ndarray, palette: np.ndarray) -> None:
    """Write H×W ids (−1 for no class) in the colours of an n×3 palette.

    Up to 255 ids become a palette PNG, whose indices are the ids. More become an RGB image.
    """
    if len(palette) > MOST_BYTE_IDS:
        image = Image.fromarray(colored(ids, palette))
    else:
        image = _id_image(ids, len(palette))
        image.putpalette(np.pad(palette, ((0, 256 - len(palette)), (0, 0))).astype(np.uint8).tobytes())
    write_image(path, image)


def write_image(path: Path, pixels: np.ndarray | Image.Image) -> None:
    """Write an image, or H×W or H×W×3 uint8 pixels, atomically."""
    with written_atomically(path) as temporary:
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(temporary)


def overlay(
    photograph: Image.Image, ids: np.ndarray, palette: np.ndarray, opacity: float = OVERLAY_OPACITY
) -> np.ndarray:
    """Blend class colours over a photograph, with opaque outlines in the same colours; H×W×3 uint8."""
    colors = colored(ids, palette)
    pixels, borders = np.array(Image.blend(photograph, Image.fromarray(colors), opacity)), _borders(ids)
    pixels[borders] = colors[borders]
    return pixels


def id_type(n_ids: int) -> type[np.uint8] | type[np.uint16]:
    """Integer type that stores ``n_ids`` ids; raises DataError if there are more than 65535."""
    if n_ids > MOST_IDS:
        raise DataError(f"{n_ids} classes or clusters: a label map holds at most {MOST_IDS}")
    return np.uint8 if n_ids <= MOST_BYTE_IDS else np.uint16


@lru_cache
def _distinct_colors(n: int) -> tuple[tuple[int, ...], ...]:
    steps = np.linspace(0, 255, _CANDIDATES_PER_CHANNEL).round().astype(int)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=3).reshape(-1, 3)
    lightness, a, b = _simulated_lab(grid, _NORMAL[1]).T
    chroma = np.hypot(a, b)
    moderate = (lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1])
    candidates = grid[moderate & (chroma >= _CHROMA[0]) & (chroma <= _CHROMA[1])]
    lab = [_simulated_lab(candidates, seen) for _, seen in _VISIONS]
    distance = np.full(len(candidates), np.inf)
    chosen: list[tuple[int, ...]] = [VOID_COLOR]
    while len(chosen) <= n:
        for (weight, seen), of_candidates in zip(_VISIONS, lab, strict=True):
            previous = _simulated_lab(np.array(chosen[-1:]), seen)
            distance = np.minimum(distance, weight * deltaE_ciede2000(of_candidates, previous))
        farthest = tuple(candidates[distance.argmax()].tolist())
        chosen.append(_FIRST_COLORS[len(chosen) - 1] if len(chosen) <= len(_FIRST_COLORS) else farthest)
    return tuple(chosen[1:])


def _simulated_lab(colors: np.ndarray, seen: Sequence[Sequence[float]]) -> np.ndarray:
    """CIELAB of m×3 RGB colours (0 to 255) as a row of ``_VISIONS`` sees them, m×3."""
    rgb = colors / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(seen).T, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


def _id_image(ids: np.ndarray, n_ids: int) -> Image.Image:
    kind = id_type(n_ids)
    stored = ids.astype(kind)
    stored[ids == NO_CLASS] = np.iinfo(kind).max
    return Image.fromarray(stored)


def _borders(ids: np.ndarray) -> np.ndarray:
    """Mask of the pixels at borders between classes, H×W bool; wider in larger images, none around specks."""
    regions = label(ids, background=NO_CLASS - 1, connectivity=1)
    large = np.bincount(regions.ravel())[regions] >= SPECK * ids.size
    borders = np.zeros(ids.shape, dtype=bool)
    reach = max(1, round(min(ids.shape) / 500))
    for axis in (0, 1):
        here, there = (np.moveaxis(part, axis, 0) for part in (ids, large))
        differ = (here[reach:] != here[:-reach]) & there[reach:] & there[:-reach]
        edges = np.moveaxis(borders, axis, 0)  # a view
        edges[:-reach] |= differ
        edges[reach:] |= differ
    return borders
