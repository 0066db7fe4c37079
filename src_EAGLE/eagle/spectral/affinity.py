"""Affinities A_f (codes) and A_c (colours) between the patches of an image (docs/method.md §4, eq. 3 and 4)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from eagle.data.views import unnormalize

COLOR_SIGMA = 0.1


@torch.no_grad()
def feature_affinity(code: Tensor) -> Tensor:
    """A_f = relu(S Sᵀ) of un-normalised codes, divided by its maximum per image.

    Args:
        code: S, B×N×D.

    Returns:
        B×N×N float32 in [0, 1]; all zero for an image without positive inner products.

    Example:
        >>> import torch
        >>> from eagle import feature_affinity
        >>> feature_affinity(torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]]))
        tensor([[[0.2500, 0.5000, 0.0000],
                 [0.5000, 1.0000, 0.0000],
                 [0.0000, 0.0000, 0.2500]]])
    """
    with torch.autocast(code.device.type, enabled=False):
        code = code.float()
        return _divided_by_maximum(torch.bmm(code, code.transpose(1, 2)).clamp_(min=0))


@torch.no_grad()
def color_affinity(img: Tensor, grid: tuple[int, int], mode: str = "released") -> Tensor:
    """A_c = exp(-‖p_i - p_j‖² / (2·0.1²)) of patch colours p, divided by its maximum per image.

    Args:
        img: B×3×H×W, ImageNet-normalised.
        grid: patch grid (h, w), to which the image is resized bilinearly.
        mode: "released" uses the normalised image ÷ 255, so all entries are close to one; "paper" uses RGB in [0, 1].

    Returns:
        B×N×N float32 in [0, 1] with N = h·w.

    Example:
        >>> import torch
        >>> from eagle import color_affinity
        >>> color_affinity(torch.zeros(1, 3, 32, 32), grid=(4, 4)).shape
        torch.Size([1, 16, 16])
    """
    with torch.autocast(img.device.type, enabled=False):
        small = F.interpolate(img.float(), size=grid, mode="bilinear", align_corners=False)
        pixels = (unnormalize(small) if mode == "paper" else small / 255).flatten(2).transpose(1, 2)
        # Distances come from inner products; centring the pixels first avoids cancellation.
        pixels = (pixels - pixels.mean(dim=1, keepdim=True)) / COLOR_SIGMA
        half_square = pixels.square().sum(dim=2, keepdim=True) / 2
        exponent = torch.bmm(pixels, pixels.transpose(1, 2)).sub_(half_square).sub_(half_square.transpose(1, 2))
        return _divided_by_maximum(exponent.clamp_(max=0).exp_())


def _divided_by_maximum(affinity: Tensor) -> Tensor:
    """Divide each image's affinity by its maximum, in place; an all-zero one stays zero."""
    maximum = affinity.amax(dim=(1, 2), keepdim=True)
    return affinity.div_(torch.where(maximum > 0, maximum, torch.ones_like(maximum)))
