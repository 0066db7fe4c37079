"""ClusterLookup: cosine k-means by gradient descent, the cluster probe and the EiCue codebooks (docs/method.md §6)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Channels upsampled at once to compute a norm.
NORM_CHUNK = 32
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
        """``similarity`` of ``resample(x)``, where ``resample`` is linear and the same for every channel.

        Such a map commutes with the inner product, so it is applied to the n_classes scores. Only the norms need the
        resampled channels, a few at a time.
        """
        return resample(self.inner(x)) / _resampled_norm(x.float(), resample)

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
    """Bilinear interpolation, B×C×h×w → B×C×H×W with size (H, W), align_corners False."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _resampled_norm(x: Tensor, resample: Callable[[Tensor], Tensor]) -> Tensor:
    """L2 norm over the channels of ``resample(x)``, B×1×H×W."""
    squares = sum(resample(part).square().sum(dim=1, keepdim=True) for part in x.split(NORM_CHUNK, dim=1))
    return torch.as_tensor(squares).sqrt().clamp(min=NORM_EPS)
