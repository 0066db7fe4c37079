"""Keys of images that the frozen backbone has already seen."""

import torch
from torch import Tensor

from eagle.models.backbone import KeyBackbone


class KeyCache:
    """Keeps the keys of clean training images in memory, in half precision, one image at a time.

    Right only while an image number always means the same pixels, i.e. without geometric augmentation.

    Args:
        backbone: computes what is not there yet.
    """

    def __init__(self, backbone: KeyBackbone) -> None:
        self._backbone = backbone
        self._keys: dict[int, Tensor] = {}

    def __call__(self, img: Tensor, index: Tensor) -> Tensor:
        """K of B×3×H×W images with the numbers B ``index``; only images not seen before pass the backbone."""
        numbers = index.tolist()
        missing = [row for row, number in enumerate(numbers) if number not in self._keys]
        if missing:
            computed = self._backbone(img[missing]).half().cpu()
            self._keys |= {numbers[row]: keys for row, keys in zip(missing, computed, strict=True)}
        return torch.stack([self._keys[number] for number in numbers]).to(img.device, torch.float32)
