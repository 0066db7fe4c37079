"""Photographs that scikit-image and scikit-learn carry in their wheels: something to look at without a download.

``china.jpg`` and ``flower.jpg`` are CC BY 2.0; scikit-image's README.txt beside the others says where they come from.
"""

from importlib.resources import files
from pathlib import Path

from eagle.errors import DataError

SKIMAGE = "skimage.data"
SKLEARN = "sklearn.datasets.images"

# Photographs in colour of what one may meet; the packages' test patterns, textures and micrographs are left out.
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
    """The files of all of them, sorted by name; raises DataError as ``bundled_file`` does."""
    return [bundled_file(package, name) for package, name in PHOTOGRAPHS]


def bundled_file(package: str, name: str) -> Path:
    """A file in an installed package; raises DataError where it is not there."""
    try:
        path = Path(str(files(package) / name))
    except ModuleNotFoundError:
        path = Path(name)
    if not path.is_file():
        raise DataError(f"{name}: not in the installed {package}; reinstall scikit-image and scikit-learn")
    return path
