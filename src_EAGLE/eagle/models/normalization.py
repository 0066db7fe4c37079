"""From ImageNet's normalisation, which this repository uses throughout, to the one a backbone was trained with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eagle.data.loading.transforms import IMAGENET_MEAN, IMAGENET_STD


class Renormalize(nn.Module):
    """Replaces ImageNet's mean and standard deviation by others.

    Its constants are not part of the state dict, so a backbone's state dict holds timm's names alone.

    Args:
        mean: the new mean of each channel, for images in [0, 1].
        std: the new standard deviation of each channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        old_mean, old_std, new_mean, new_std = (
            torch.tensor(statistic)[:, None, None] for statistic in (IMAGENET_MEAN, IMAGENET_STD, mean, std)
        )
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", old_std / new_std, persistent=False)
        self.register_buffer("shift", (old_mean - new_mean) / new_std, persistent=False)

    def forward(self, img: Tensor) -> Tensor:
        """Renormalise B×3×H×W images."""
        return img * self.scale + self.shift


def renormalization(mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """The module that maps ImageNet-normalised images to ``mean`` and ``std``; the identity if they are ImageNet's."""
    if (tuple(mean), tuple(std)) == (IMAGENET_MEAN, IMAGENET_STD):
        return nn.Identity()
    return Renormalize(mean, std)
