"""A photograph as the model's input without padding, for eigenvectors on the whole grid of patches."""

from PIL import Image
from torch import Tensor

from eagle.data.loading.transforms import image_tensor, normalize
from eagle.errors import DataError

# The affinity and the Laplacian of this many patches take 1.2 GB; a full eigendecomposition (rarely needed) takes more.
MAX_PATCHES = 10_000


def whole_patch_size(photograph: Image.Image, res: int, patch_size: int) -> tuple[int, int]:
    """(width, height) with the short side ``res`` and the long side the nearest multiple of the patch size.

    The aspect changes by at most half a patch.

    Raises:
        DataError: the photograph is so long that it has more than MAX_PATCHES patches.
    """
    short = min(photograph.size)
    columns, rows = (round(side * res / short / patch_size) for side in photograph.size)
    if columns * rows > MAX_PATCHES:
        raise DataError(f"{columns}×{rows} patches are more than {MAX_PATCHES}; lower res or crop the image")
    return columns * patch_size, rows * patch_size


def input_of_size(photograph: Image.Image, size: tuple[int, int]) -> Tensor:
    """Resize an RGB photograph to (width, height), nearest neighbour as in training; 1×3×height×width normalised."""
    return normalize(image_tensor(photograph.resize(size, Image.Resampling.NEAREST)))[None]
