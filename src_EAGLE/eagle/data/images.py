"""Read images and label maps from files; whatever is wrong with a file is said in one line that names it."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from eagle.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_MODES = ("L", "P", "I", "I;16", "1")


def read_image(path: Path) -> Image.Image:
    """The RGB image in a file.

    Raises:
        DataError: the file is missing, not an image, or cut off.
    """
    return _loaded(path).convert("RGB")


def read_label(path: Path) -> np.ndarray:
    """The integer ids in a single-channel image, H×W int32; palette images give their indices.

    Raises:
        DataError: the file is missing, not an image, cut off, or has colour channels.
    """
    image = _loaded(path)
    if image.mode not in LABEL_MODES:
        raise DataError(f"{path}: a label map has one channel of ids, this image is {image.mode}")
    return np.asarray(image).astype(np.int32)


def image_files(folder: Path) -> list[Path]:
    """All image files of a folder, sorted by name; raises DataError where there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _loaded(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}: cannot be read as an image ({reason}); repair or remove it") from error
