"""ImageNet normalisation, which every backbone here was trained with."""

import torch
from torch import Tensor

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


def _statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(IMAGENET_MEAN, dtype=like.dtype, device=like.device)
    std = torch.tensor(IMAGENET_STD, dtype=like.dtype, device=like.device)
    return mean[:, None, None], std[:, None, None]
