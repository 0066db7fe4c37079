"""Write label maps (ids, coloured ids) and pictures as image files; draw overlays."""

from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.class_map import NO_CLASS
from eagle.data.palette import colored
from eagle.errors import DataError
from eagle.files import written_atomically

# Largest number of ids in 8 and 16 bits per pixel; the highest value marks pixels without a class.
MOST_BYTE_IDS, MOST_IDS = 255, 65535
OVERLAY_OPACITY = 0.5


def write_ids(path: Path, ids: np.ndarray, n_ids: int) -> None:
    """Write H×W class or cluster ids as a greyscale PNG: 8 bits for up to 255 ids, else 16 bits.

    Args:
        path: output file.
        ids: in [0, n_ids); −1 (no class) is written as the highest value, 255 or 65535.
        n_ids: number of classes or clusters; it fixes the bit depth, so all images share it.
    """
    _save(path, _id_image(ids, n_ids))


def write_colored_ids(path: Path, ids: np.ndarray, palette: np.ndarray) -> None:
    """Write H×W ids (−1 for no class) in the colours of an n×3 palette.

    Up to 255 ids become a palette PNG, whose indices are the ids. More become an RGB image.
    """
    if len(palette) > MOST_BYTE_IDS:
        write_image(path, colored(ids, palette))
        return
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    image = _id_image(ids, len(palette))
    image.putpalette(table.tobytes())
    _save(path, image)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write H×W or H×W×3 uint8 pixels atomically."""
    _save(path, Image.fromarray(pixels))


def overlay(
    photograph: Image.Image, ids: np.ndarray, palette: np.ndarray, opacity: float = OVERLAY_OPACITY
) -> np.ndarray:
    """Blend class colours over a photograph and draw class borders in white; H×W×3 uint8."""
    tinted = Image.blend(photograph, Image.fromarray(colored(ids, palette)), opacity)
    pixels = np.array(tinted)
    pixels[_borders(ids)] = 255
    return pixels


def id_type(n_ids: int) -> type[np.uint8] | type[np.uint16]:
    """Integer type that stores ``n_ids`` ids; raises DataError if there are more than 65535."""
    if n_ids > MOST_IDS:
        raise DataError(f"{n_ids} classes or clusters: a label map holds at most {MOST_IDS}")
    return np.uint8 if n_ids <= MOST_BYTE_IDS else np.uint16


def _id_image(ids: np.ndarray, n_ids: int) -> Image.Image:
    kind = id_type(n_ids)
    stored = ids.astype(kind)
    stored[ids == NO_CLASS] = np.iinfo(kind).max
    return Image.fromarray(stored)


def _save(path: Path, image: Image.Image) -> None:
    with written_atomically(path) as temporary:
        image.save(temporary)


def _borders(ids: np.ndarray) -> np.ndarray:
    """Mask of pixels whose right or lower neighbour has another class, H×W bool; wider in larger images."""
    borders = np.zeros(ids.shape, dtype=bool)
    reach = max(1, round(min(ids.shape) / 500))
    borders[:, :-reach] |= ids[:, reach:] != ids[:, :-reach]
    borders[:-reach] |= ids[reach:] != ids[:-reach]
    return borders
