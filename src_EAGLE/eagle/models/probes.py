"""ClusterLookup: cosine k-means by gradient descent, the cluster probe and the EiCue codebooks (docs/method.md §6)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-12


class ClusterLookup(nn.Module):
    """Learnable cluster centres, N(0, 1) initialised; positions are assigned by cosine similarity.

    Args:
        dim: channels of positions and centres.
        n_classes: number of centres.

    Example:
        >>> import torch
        >>> from eagle import ClusterLookup
        >>> probe = ClusterLookup(dim=32, n_classes=5)
        >>> loss, probs = probe(torch.randn(2, 32, 8, 12), alpha=2.0)
        >>> probs.shape, probs.sum(dim=1).allclose(torch.ones(2, 8, 12))
        (torch.Size([2, 5, 8, 12]), True)
    """

    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        self.clusters = nn.Parameter(torch.randn(n_classes, dim))

    def inner(self, x: Tensor) -> Tensor:
        """Inner products of positions with unit-length centres, B×dim×h×w → B×n_classes×h×w float32."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("bdhw,nd->bnhw", x.float(), F.normalize(self.clusters.float(), dim=1))

    def similarity(self, x: Tensor) -> Tensor:
        """Cosine similarities of positions and centres, B×dim×h×w → B×n_classes×h×w float32."""
        return self.inner(F.normalize(x.float(), dim=1))

    def resampled_similarity(self, x: Tensor, resample: Callable[[Tensor], Tensor]) -> Tensor:
        """``similarity`` of ``resample(x)``, where ``resample`` samples each channel bilinearly at the same points.

        Sampling commutes with the inner product, so it is applied to the n_classes scores; the norms follow from those
        of the positions and of their differences. The channels of x are never resampled.
        """
        return resample(self.inner(x)) / resampled_norm(x.float(), resample)

    def forward(self, x: Tensor, alpha: float | None, log_probs: bool = False) -> tuple[Tensor, Tensor]:
        """Assign positions to centres.

        Args:
            x: B×dim×h×w.
            alpha: probs = softmax(alpha · cos); None for the one-hot nearest centre.
            log_probs: return log_softmax(alpha · cos) instead of probs; needs an alpha.

        Returns:
            The loss -mean_over_positions(Σ_c probs_c cos_c), a scalar, and the (log-)probabilities, B×n_classes×h×w.

        Raises:
            ValueError: ``log_probs`` without alpha.
        """
        similarity = self.similarity(x)
        if alpha is None:
            if log_probs:
                raise ValueError("log_probs needs an alpha: a hard assignment has no log-probabilities")
            nearest = similarity.argmax(dim=1, keepdim=True)
            probs = torch.zeros_like(similarity).scatter_(1, nearest, 1)
        else:
            probs = F.softmax(alpha * similarity, dim=1)
        loss = -(probs * similarity).sum(dim=1).mean()
        return loss, F.log_softmax(alpha * similarity, dim=1) if alpha is not None and log_probs else probs


def upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation, B×C×h×w → B×C×H×W with size (H, W), align_corners False.

    The channels of a pixel lie together in memory, which makes this and an argmax over them twice as fast.
    """
    channels_last = x.contiguous(memory_format=torch.channels_last)
    return F.interpolate(channels_last, size, mode="bilinear", align_corners=False)


def channel_log_softmax(scores: Tensor) -> Tensor:
    """Log-softmax over the channels of B×C×H×W, in the memory order of ``upsampled``, which is several times faster."""
    return F.log_softmax(scores.movedim(1, -1), dim=-1).movedim(-1, 1)


def resampled_norm(x: Tensor, resample: Callable[[Tensor], Tensor]) -> Tensor:
    """L2 norm over the channels of ``resample(x)``, bilinear samples of B×C×h×w → B×1×H×W.

    Between two positions |(1-t)u + tv|² = (1-t)|u|² + t|v|² - t(1-t)|u-v|². Used along x and then along y, this gives
    the norms at all samples from four maps of the h×w grid instead of C.
    """
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype)[:, None].expand(height, width)
    columns = torch.arange(width, device=x.device, dtype=x.dtype)[None].expand(height, width)
    y, across = resample(torch.stack([rows, columns])[None])[0]
    top, left = y.floor().long(), across.floor().long()
    t_y, t_x = y - top, across - left
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    step_x, step_y = padded.diff(dim=3), padded.diff(dim=2)
    along_x, along_y, both = (part.square().sum(dim=1) for part in (step_x, step_y, step_y.diff(dim=3)))
    squares = (
        resample(x.square().sum(dim=1, keepdim=True))[:, 0]
        - t_x * (1 - t_x) * torch.lerp(along_x[:, top, left], along_x[:, top + 1, left], t_y)
        - t_y * (1 - t_y) * torch.lerp(along_y[:, top, left], along_y[:, top, left + 1], t_x)
        + t_x * (1 - t_x) * t_y * (1 - t_y) * both[:, top, left]
    )
    return squares.clamp(min=NORM_EPS**2).sqrt()[:, None]
