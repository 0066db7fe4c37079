"""Read what a visitor uploads; limits and defects become messages that name the visitor's file."""

from pathlib import Path

from PIL import Image

from eagle.data.images import read_header, read_photograph
from eagle.errors import DataError

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 32_000_000


def read_upload(path: Path, folder: Path, name: str) -> Image.Image:
    """Read an uploaded photograph, upright, and delete its file, readable or not.

    Args:
        path: the file, as the browser names it; it may name anything.
        folder: the folder of uploads, the only one that is read.
        name: the visitor's name of the file, for messages.

    Returns:
        RGB.

    Raises:
        DataError: the file lies elsewhere, is missing, too large or not a readable photograph.
    """
    path = path.resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"{name}: not an uploaded file")
    try:
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            raise DataError(f"{name}: more than {MOST_BYTES // 2**20} MB; save it smaller or as JPEG")
        width, height = read_header(path).size
        if width * height > MOST_PIXELS:
            most = f"{MOST_PIXELS // 10**6} million"
            raise DataError(f"{name}: {width}×{height} pixels are more than {most}; make the picture smaller")
        return read_photograph(path)
    except DataError as error:
        raise DataError(str(error).replace(str(path), name)) from error
    finally:
        path.unlink(missing_ok=True)
