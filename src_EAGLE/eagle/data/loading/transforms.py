"""Geometry, photometry and ImageNet normalisation of training and evaluation views (method §3, §9)."""

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

# Names what resize_and_crop and normalize do to an image; cached keys of another name are not taken.
CLEAN_VIEW = "short side nearest, centre crop, ImageNet statistics"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] → ImageNet-normalised; …×3×H×W."""
    mean, std = _statistics(rgb)
    return (rgb - mean) / std


def unnormalize(img: Tensor) -> Tensor:
    """ImageNet-normalised → RGB in [0, 1]; …×3×H×W."""
    channels = zip(img.unbind(-3), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    # Not by a tensor of statistics: on a GPU its making would wait for the device.
    return torch.stack([channel * std + mean for channel, mean, std in channels], dim=-3)


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


def _statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(IMAGENET_MEAN, dtype=like.dtype, device=like.device)
    std = torch.tensor(IMAGENET_STD, dtype=like.dtype, device=like.device)
    return mean[:, None, None], std[:, None, None]
