"""Read images and label maps from files; whatever is wrong with a file is said in one line that names it.

Pixels are taken in the order in which the file stores them: an EXIF orientation is never applied. The public datasets
draw their labels in that order and STEGO reads images so; a label map therefore fits its image whatever viewers show.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from eagle.errors import DataError, one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_MODES = ("L", "P", "I", "I;16", "I;16B", "1")

# What those suffixes stand for, and GIF, which the web likes to call .jpg. Pillow knows formats that start a program
# (EPS starts Ghostscript), so it may not choose by content alone.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
# Beyond it, the short side scaled to a few hundred pixels makes the long side take all memory.
_LARGEST_ASPECT = 100


class Header(NamedTuple):
    """What a file says of itself before its pixels are read.

    Attributes:
        mode: Pillow's name of the pixel format, e.g. RGB, L, P, CMYK, I;16.
        orientation: EXIF orientation, 1 for upright.
    """

    mode: str
    orientation: int


def read_image(path: Path) -> Image.Image:
    """The RGB image in a file, in stored pixel order; transparency is dropped, 16 bits are scaled to 8.

    Raises:
        DataError: the file is missing, not an image, cut off, of a pixel format without a fixed range, or too narrow.
    """
    image = _loaded(path)
    if max(image.size) > _LARGEST_ASPECT * min(image.size):
        raise DataError(f"{path}: {image.width}×{image.height} pixels are too narrow to be scaled; crop or remove it")
    try:
        return _rgb(image)
    except ValueError as error:
        raise DataError(
            f"{path}: its pixel format {image.mode} has no known range of values; convert it to 8 or 16 bits"
        ) from error


def read_label(path: Path) -> np.ndarray:
    """The integer ids in a single-channel image, H×W int32; palette images give their indices.

    Raises:
        DataError: the file is missing, not an image, cut off, has colour channels or went through a lossy JPEG.
    """
    image = _loaded(path)
    if image.mode not in LABEL_MODES:
        raise DataError(f"{path}: a label map has one channel of ids, this image is {image.mode}")
    if image.format in ("JPEG", "MPO"):
        raise DataError(f"{path}: JPEG changes the ids of a label map; write it as PNG")
    return np.asarray(image).astype(np.int32)


def read_header(path: Path) -> Header:
    """Pixel format and orientation that a file states; raises DataError as read_image does."""
    with _opened(path) as image:
        return Header(image.mode, int(image.getexif().get(ExifTags.Base.Orientation, 1)))


def image_files(folder: Path, further_suffixes: tuple[str, ...] = ()) -> list[Path]:
    """All image files of a folder but hidden ones, sorted by name; raises DataError where there is no such folder.

    Args:
        folder: its sub-folders are not searched.
        further_suffixes: of other files that count too, lower case.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    suffixes = (*IMAGE_SUFFIXES, *further_suffixes)
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Pillow would clip: all above 255 white.
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"no range of values: {image.mode}")
    if image.mode == "P" and "transparency" in image.info:
        # By way of RGBA, or Pillow warns for every such file.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _loaded(path: Path) -> Image.Image:
    with _opened(path) as image:
        image.load()
        return image


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file, pixels not read yet; any error while it is open becomes a DataError that names the file."""
    if not path.is_file():
        # Opening a named pipe would wait for ever.
        raise DataError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too many pixels for one image; cut it into tiles or scale it down") from error
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them to
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise DataError(f"{path}: cannot be read as an image ({reason}); repair or remove it") from error
