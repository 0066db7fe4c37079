"""Read images and label maps from files; any defect raises a one-line DataError that names the file.

Pixels are read in stored order: EXIF orientation is never applied. The public datasets' labels follow the stored order
and STEGO reads images the same way, so image and label map stay aligned.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from eagle.errors import DataError, one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_MODES = ("L", "P", "I", "I;16", "I;16B", "1")

# The formats of those suffixes, and GIF, which web files often hold under .jpg. Pillow must not choose among all its
# formats by content: some start a program (EPS starts Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
# Resizing the short side of a narrower image to a few hundred pixels would exhaust memory.
_LARGEST_ASPECT = 100
# What undoes each EXIF orientation, which Pillow applies to TIFF files by itself.
_BACK_TO_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def read_image(path: Path) -> Image.Image:
    """Read an RGB image in stored pixel order; alpha is dropped and 16 bits are scaled to 8.

    Raises:
        DataError: the file is missing, not an image, truncated, too narrow, or of a pixel format without a value range.
    """
    return rgb_image(_load(path), str(path))


def read_photograph(path: Path) -> Image.Image:
    """Read an RGB image and turn it upright by its EXIF orientation; raises DataError as ``read_image`` does."""
    return rgb_image(_load(path, upright=True), str(path))


def rgb_image(image: Image.Image, name: str) -> Image.Image:
    """Convert a loaded image of any mode to RGB, into new memory; alpha is dropped and 16 bits are scaled to 8.

    Raises:
        DataError: the image, called ``name``, has no pixels, is too narrow, or is of a pixel format without a value
            range.
    """
    if not min(image.size):
        raise DataError(f"{name}: {image.width}×{image.height} pixels are no image")
    if max(image.size) > _LARGEST_ASPECT * min(image.size):
        raise DataError(f"{name}: {image.width}×{image.height} pixels are too narrow to resize; crop or remove it")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Pillow would clip values above 255 to white.
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"{name}: its pixel format {image.mode} has no known value range; convert it to 8 or 16 bits")
    try:
        # Converting a transparent palette directly to RGB makes Pillow warn.
        is_transparent = image.mode == "P" and "transparency" in image.info
        return (image.convert("RGBA") if is_transparent else image).convert("RGB")
    except ValueError as error:
        raise DataError(f"{name}: its pixel format {image.mode} cannot be converted; save it as RGB") from error


def read_label(path: Path) -> np.ndarray:
    """Read integer ids from a single-channel image as H×W int32; palette images yield their indices.

    Raises:
        DataError: the file is missing, not an image, truncated, a JPEG, or has colour channels.
    """
    image = _load(path)
    if image.mode not in LABEL_MODES:
        raise DataError(
            f"{path}: a label map has one channel of ids, but this image is {image.mode}; write the ids as PNG"
        )
    if image.format in ("JPEG", "MPO"):
        raise DataError(f"{path}: JPEG changes the ids of a label map; write it as PNG")
    return np.asarray(image).astype(np.int32)


def read_size(path: Path) -> tuple[int, int]:
    """Read width and height without the pixels; raises DataError if the file is missing or not an image."""
    with _open(path) as image:
        return image.size


def is_turned(path: Path) -> bool:
    """Whether EXIF would turn or flip the stored pixels; raises DataError if the file is missing or not an image."""
    with _open(path) as image:
        return _orientation(image) in _BACK_TO_STORED


def image_files(folder: Path, extra_suffixes: tuple[str, ...] = ()) -> list[Path]:
    """List the image files of a folder, sorted by name, without hidden files; raises DataError if it does not exist.

    ``extra_suffixes`` are further lower-case suffixes to include.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    suffixes = (*IMAGE_SUFFIXES, *extra_suffixes)
    with os.scandir(folder) as entries:
        # Names sort faster than paths, and in the same order.
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    return [folder / name for name in names if name.lower().endswith(suffixes)]


def _load(path: Path, upright: bool = False) -> Image.Image:
    """Load pixels in stored order or, if ``upright``, turned by the EXIF orientation."""
    with _open(path) as image:
        back = None
        if image.format == "TIFF" and not upright:
            back = _BACK_TO_STORED.get(_orientation(image))
        image.load()
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        return image if back is None else image.transpose(back)


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Open an image lazily; any error inside the context becomes a DataError that names the file."""
    if not path.is_file():
        # Opening a named pipe would block forever.
        raise DataError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    try:
        # Given a path, Pillow maps uncompressed grey TIFFs into memory and garbles those with EXIF orientation 5 to 8.
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too many pixels; split the image into tiles or downscale it") from error
    except Exception as error:  # Pillow raises many exception types for damaged files
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise DataError(f"{path}: cannot be read as an image ({reason}); repair or remove it") from error
