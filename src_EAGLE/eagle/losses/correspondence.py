"""Correspondence distillation: codes learn to correlate as keys do (docs/method.md §7; STEGO equations 2 to 4).

fd and cd are the cosine similarities between two sets of points, of their keys and of their codes (B×P×P):

    loss  = -clamp(cd, 0, 0.8) · (fd - shift)
    shift = |mean(fd) - mean(cd) - shift_bias|                   for positive pairs
    shift = (mean(fd) + mean(cd) - shift_bias) · shift_value     for negative pairs
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CODE_CORRELATION_LIMIT = 0.8
NORM_EPS = 1e-10
NO_LOWER_LIMIT = -9999.0

Corners = tuple[Tensor, Tensor]


class CorrespondenceLoss(nn.Module):
    """Correlation losses of positive pairs (two views of an image) and negative pairs (two images).

    Args:
        cfg: has feature_samples, neg_samples, shift_value, shift_bias, pointwise, zero_clamp and stabalize.

    Example:
        >>> import torch
        >>> from eagle import CorrespondenceLoss
        >>> from eagle.config.schema import TrainConfig
        >>> keys, code = torch.randn(4, 144, 8, 8), torch.randn(4, 32, 8, 8)
        >>> terms = CorrespondenceLoss(TrainConfig())(keys, keys, keys, code, code, code)
        >>> sorted(terms)
        ['neg_inter_cd', 'neg_inter_loss', 'pos_inter_cd', 'pos_inter_loss']
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.feature_samples: int = cfg.feature_samples
        self.neg_samples: int = cfg.neg_samples
        self.shift_value: float = cfg.shift_value
        self.shift_bias: float = cfg.shift_bias
        self.pointwise: bool = cfg.pointwise
        self.lower_limit = 0.0 if cfg.zero_clamp else NO_LOWER_LIMIT
        self.upper_limit = CODE_CORRELATION_LIMIT if cfg.stabalize else None

    def forward(
        self,
        feats: Tensor,
        feats_pos: Tensor,
        feats_pos_aug: Tensor,
        code: Tensor,
        code_pos: Tensor,
        code_pos_aug: Tensor,
        coords: Tensor | None = None,
        perms: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses and code correlations of sampled points.

        Args:
            feats: keys of the anchor image, B×C×h×w.
            feats_pos: keys of its positive.
            feats_pos_aug: keys of the positive's augmented view.
            code: codes of the anchor image, B×D×h×w.
            code_pos: codes of its positive.
            code_pos_aug: codes of the positive's augmented view.
            coords: c1, c2, c3 as 3×B×s×s×2 in [-1, 1]: points of the anchor, of its positive and negatives, and of the
                augmented view; None draws them uniformly.
            perms: index of each image's negative, n×B; None draws ``neg_samples`` of them. A batch of one has no
                negatives: its negative losses and correlations are zero.

        Returns:
            ``pos_inter_loss`` (scalar mean), ``pos_inter_cd`` (B×s×s×s×s), and ``neg_inter_loss`` and
            ``neg_inter_cd`` (n·B×s×s×s×s); float32.
        """
        with torch.autocast(feats.device.type, enabled=False):
            if coords is None:
                coords = self.random_coords(len(feats), feats.device)
            if perms is None:
                perms = self.random_perms(len(feats), feats.device)
            anchor, positive, positive_aug = (grid_corners(points, *feats.shape[2:]) for points in coords)
            key_rows, key_pos_rows, key_aug_rows = map(patch_rows, (feats, feats_pos, feats_pos_aug))
            code_rows, code_pos_rows, code_aug_rows = map(patch_rows, (code, code_pos, code_pos_aug))
            pos_loss, pos_cd = self._pair(
                sample(key_aug_rows, positive_aug), sample(key_pos_rows, positive),
                sample(code_aug_rows, positive_aug), sample(code_pos_rows, positive), is_positive=True,
            )  # fmt: skip
            keys, codes = sample(key_rows, anchor), sample(code_rows, anchor)
            negatives = [
                self._pair(
                    keys, sample(key_rows, positive, perm), codes, sample(code_rows, positive, perm), is_positive=False
                )
                for perm in perms
            ] or [(torch.zeros_like(pos_loss), torch.zeros_like(pos_cd))]
        shape = (-1, *coords.shape[2:4], *coords.shape[2:4])
        return {
            "pos_inter_loss": pos_loss.mean(),
            "pos_inter_cd": pos_cd.view(shape),
            "neg_inter_loss": torch.cat([loss for loss, _ in negatives]).view(shape),
            "neg_inter_cd": torch.cat([cd for _, cd in negatives]).view(shape),
        }

    def random_coords(self, batch_size: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Three independent uniform coordinate sets, 3×B×s×s×2 in [-1, 1]; ``generator`` must be on ``device``."""
        s = self.feature_samples
        return torch.rand(3, batch_size, s, s, 2, device=device, generator=generator) * 2 - 1

    def random_perms(self, batch_size: int, device: torch.device) -> Tensor:
        """Indices of ``neg_samples`` negatives per image, n×B; 0×1 for a batch of one.

        Each row is a random permutation whose fixed points i become i + 1 modulo B, so it need not be a permutation.
        """
        if batch_size == 1:
            return torch.empty(0, 1, dtype=torch.long, device=device)
        perms = torch.stack([torch.randperm(batch_size, device=device) for _ in range(self.neg_samples)])
        fixed = perms == torch.arange(batch_size, device=device)
        return torch.where(fixed, (perms + 1) % batch_size, perms)

    def _pair(self, f1: Tensor, f2: Tensor, c1: Tensor, c2: Tensor, is_positive: bool) -> tuple[Tensor, Tensor]:
        """Loss and code correlation cd between two sets of points, B×P×P; keys f are B×P×C, codes c are B×P×D."""
        with torch.no_grad():
            fd = correlation(f1, f2)
            mean_fd = fd.mean()
            if self.pointwise:
                fd -= fd.mean(dim=2, keepdim=True)
                fd += mean_fd - fd.mean()
        cd = correlation(c1, c2)
        # Do not detach mean(cd): the method's gradient flows through the shift.
        if is_positive:
            shift = (mean_fd - cd.mean() - self.shift_bias).abs()
        else:
            shift = (mean_fd + cd.mean() - self.shift_bias) * self.shift_value
        return -cd.clamp(self.lower_limit, self.upper_limit) * (fd - shift), cd


def grid_corners(coords: Tensor, h: int, w: int) -> Corners:
    """The four patches around each of B×s×s×2 points (x, y) in [-1, 1], where ±1 are the centres of border patches.

    Returns:
        Row-major indices among h×w patches, and bilinear weights, both B×P×4 with P = s². The s×s grid is transposed,
        as in the released code.
    """
    limits = torch.stack([coords.new_full((), w - 1), coords.new_full((), h - 1)])
    positions = (coords.transpose(1, 2).flatten(1, 2) + 1) / 2 * limits
    positions = torch.minimum(positions.clamp(min=0), limits)
    low = positions.floor()
    high = torch.minimum(low + 1, limits)
    (left, top), (right, bottom) = low.long().unbind(2), high.long().unbind(2)
    x, y = (positions - low).unbind(2)
    indices = torch.stack([top * w + left, top * w + right, bottom * w + left, bottom * w + right], dim=2)
    weights = torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], dim=2)
    return indices, weights


def patch_rows(features: Tensor) -> Tensor:
    """B×C×h×w → B×N×C float32, contiguous rows, N = h·w."""
    return features.flatten(2).transpose(1, 2).float().contiguous()


def sample(rows: Tensor, corners: Corners, images: Tensor | None = None) -> Tensor:
    """Bilinear samples of patch rows, B×P×C.

    Equals ``grid_sample`` (border padding, align_corners True). A weighted sum of whole rows is faster than its loop
    over channels, and the backward pass is reproducible under deterministic algorithms.

    Args:
        rows: features of all images, B×N×C.
        corners: of B sets of P points, see ``grid_corners``.
        images: index of the image that each set samples, B; None samples set b from image b.
    """
    n_images, n_patches, n_channels = rows.shape
    images = torch.arange(n_images, device=rows.device) if images is None else images
    indices = (images[:, None, None] * n_patches + corners[0]).flatten(0, 1)
    weights = corners[1].flatten(0, 1)
    samples = F.embedding_bag(indices, rows.flatten(0, 1), per_sample_weights=weights, mode="sum")
    return samples.view(len(images), -1, n_channels)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity between all points of two sets, B×P×C and B×Q×C → B×P×Q."""
    return F.normalize(a, dim=2, eps=NORM_EPS) @ F.normalize(b, dim=2, eps=NORM_EPS).transpose(1, 2)
