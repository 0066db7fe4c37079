"""Resizing, cropping, photometric augmentation and ImageNet normalisation of training and evaluation views."""

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

# Describe resize_and_crop and normalize, and Photometric; they are hashed into the names of cache folders, so a change
# invalidates cached keys.
AUGMENTATION = "blur 3×3, sigma 0.1–2, p 0.5; paper: jitter 0.3 0.3 0.3 0.1, grey 0.2"
CLEAN_VIEW = "short side nearest, centre crop, ImageNet statistics"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(rgb: Tensor) -> Tensor:
    """Normalise RGB in [0, 1], …×3×H×W, with the ImageNet mean and standard deviation."""
    mean, std = (rgb.new_tensor(statistic)[:, None, None] for statistic in (IMAGENET_MEAN, IMAGENET_STD))
    return (rgb - mean) / std


def unnormalize(img: Tensor) -> Tensor:
    """Invert normalize: ImageNet-normalised …×3×H×W → RGB in [0, 1]."""
    channels = zip(img.unbind(-3), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    # Python floats, because creating a tensor of statistics on a GPU would synchronise.
    return torch.stack([channel * std + mean for channel, mean, std in channels], dim=-3)


def resize_and_crop(image: Image.Image, res: int, crop: bool = True) -> Image.Image:
    """Resize the short side to ``res`` pixels (nearest), then take the central res×res square if ``crop``."""
    resized = TF.resize(image, [res], InterpolationMode.NEAREST)
    return TF.center_crop(resized, [res, res]) if crop else resized


def image_tensor(image: Image.Image) -> Tensor:
    """RGB image → 3×H×W float32 in [0, 1]."""
    return TF.to_tensor(image)


def label_tensor(label: np.ndarray, res: int, crop: bool = True) -> Tensor:
    """Class ids H×W → int64 tensor, resized and cropped like the image."""
    return torch.from_numpy(np.array(resize_and_crop(Image.fromarray(label.astype(np.int32)), res, crop))).long()


class Photometric:
    """Photometric augmentation that produces the second view x̃.

    Args:
        fidelity: "released" blurs half of the images (3×3 Gaussian, sigma 0.1 to 2); "paper" also jitters colours and
            turns a fifth of the images grey.
    """

    def __init__(self, fidelity: str) -> None:
        blur = transforms.RandomApply([transforms.GaussianBlur(3)], p=0.5)
        jitter = [transforms.ColorJitter(0.3, 0.3, 0.3, 0.1), transforms.RandomGrayscale(0.2)]
        self._transform = transforms.Compose([*(jitter if fidelity == "paper" else []), blur])

    def __call__(self, rgb: Tensor, seed: int) -> Tensor:
        """Augment RGB in [0, 1], 3×H×W; equal seeds give equal augmentations in every process."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._transform(rgb)
