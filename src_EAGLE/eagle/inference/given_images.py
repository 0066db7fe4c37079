"""Photographs from what Python users have: a file name, a PIL image or an array."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from PIL import Image, ImageOps

from eagle.data.images import read_photograph, rgb_image
from eagle.errors import DataError, one_line

GivenImage: TypeAlias = str | Path | Image.Image | np.ndarray

ACCEPTED = "a file name, a PIL image, or a uint8 array: H×W×3 (RGB, 0 to 255), H×W×4 (alpha is dropped) or H×W (grey)"


def listed(images: GivenImage | Sequence[GivenImage]) -> list[GivenImage]:
    """The images of a list or tuple, or the one that is given."""
    return list(images) if isinstance(images, (list, tuple)) else [cast(GivenImage, images)]


def photograph_of(image: GivenImage) -> Image.Image:
    """Read or convert an image to RGB, upright by its EXIF orientation, in memory of its own.

    Raises:
        DataError: the file is missing or unreadable, or the value is not an accepted image.
    """
    if isinstance(image, (str, Path)):
        return read_photograph(Path(image))
    if isinstance(image, Image.Image):
        try:
            # A PIL image reads its file only now; Pillow raises many exception types for damaged ones.
            upright = ImageOps.exif_transpose(image)
        except Exception as error:
            name = getattr(image, "filename", "") or "the image"
            raise DataError(f"{name}: cannot be read as an image ({one_line(error)}); repair or remove it") from error
        return rgb_image(upright, "the image")
    if isinstance(image, np.ndarray):
        return rgb_image(_image_of(image), "the array")
    raise DataError(f"cannot segment a value of type {type(image).__name__}: pass {ACCEPTED}")


def _image_of(array: np.ndarray) -> Image.Image:
    channels_fit = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not channels_fit or not array.size:
        shape = "×".join(map(str, array.shape)) or "no axis"
        raise DataError(f"cannot segment an array of {array.dtype}, {shape}: pass {ACCEPTED}")
    return Image.fromarray(array)
