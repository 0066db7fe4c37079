"""Geometry and photometry of training and evaluation views (method §3, §9)."""

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from eagle.data.normalization import normalize

# Names what resize_and_crop and normalize do to an image; cached keys of another name are not taken.
CLEAN_VIEW = "short side nearest, centre crop, ImageNet statistics"


def resize_and_crop(image: Image.Image, res: int, crop: bool = True) -> Image.Image:
    """Short side to ``res`` pixels (nearest), then the central res×res square unless ``crop`` is off."""
    resized = TF.resize(image, [res], InterpolationMode.NEAREST)
    return TF.center_crop(resized, [res, res]) if crop else resized


def image_tensor(image: Image.Image) -> Tensor:
    """RGB image → 3×H×W float32 in [0, 1]."""
    return TF.to_tensor(image)


def label_tensor(label: np.ndarray, res: int, crop: bool = True) -> Tensor:
    """Class ids H×W → int64, resized and cropped exactly as the image is."""
    return torch.from_numpy(np.array(resize_and_crop(Image.fromarray(label.astype(np.int32)), res, crop))).long()


class Photometric:
    """The augmentation that makes the second view x̃.

    Args:
        fidelity: "released" blurs half of the images (3×3 Gaussian, sigma 0.1 to 2); "paper" jitters colours and
            drops them from a fifth of the images besides.
    """

    def __init__(self, fidelity: str) -> None:
        blur = transforms.RandomApply([transforms.GaussianBlur(3)], p=0.5)
        jitter = [transforms.ColorJitter(0.3, 0.3, 0.3, 0.1), transforms.RandomGrayscale(0.2)]
        self._transform = transforms.Compose([*(jitter if fidelity == "paper" else []), blur])

    def __call__(self, rgb: Tensor, seed: int) -> Tensor:
        """3×H×W in [0, 1] in and out; the same seed draws the same augmentation, in whatever process."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._transform(rgb)


def training_views(rgb: Tensor, photometric: Photometric, seed: int) -> tuple[Tensor, Tensor]:
    """X and x̃, both normalised; blurring before or after normalising is the same."""
    return normalize(rgb), normalize(photometric(rgb, seed))
