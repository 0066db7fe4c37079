"""Photographs shipped in the wheels of scikit-image and scikit-learn, available without a download.

``china.jpg`` and ``flower.jpg`` are CC BY 2.0; scikit-image's README.txt gives the sources of the others.
"""

from importlib.resources import files
from pathlib import Path

from eagle.errors import DataError

SKIMAGE = "skimage.data"
SKLEARN = "sklearn.datasets.images"

# Colour photographs of everyday scenes; the packages' test patterns, textures and micrographs are omitted.
PHOTOGRAPHS = (
    (SKIMAGE, "astronaut.png"),
    (SKIMAGE, "chelsea.png"),
    (SKLEARN, "china.jpg"),
    (SKIMAGE, "coffee.png"),
    (SKLEARN, "flower.jpg"),
    (SKIMAGE, "hubble_deep_field.jpg"),
    (SKIMAGE, "motorcycle_left.png"),
    (SKIMAGE, "rocket.jpg"),
)


def bundled_photographs() -> list[Path]:
    """Paths of all bundled photographs, sorted by name; raises DataError if one is missing."""
    return [bundled_file(package, name) for package, name in PHOTOGRAPHS]


def bundled_file(package: str, name: str) -> Path:
    """Path of a file in an installed package; raises DataError if it is missing."""
    try:
        path = Path(str(files(package) / name))
    except ModuleNotFoundError:
        path = Path(name)
    if not path.is_file():
        raise DataError(f"{name}: missing from the installed {package}; reinstall scikit-image and scikit-learn")
    return path
