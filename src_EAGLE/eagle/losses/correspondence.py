"""Correspondence distillation: code correlations follow feature correlations (method §7; STEGO equations 2 to 4)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CODE_CORRELATION_LIMIT = 0.8
NORM_EPS = 1e-10
NO_LOWER_LIMIT = -9999.0


class CorrespondenceLoss(nn.Module):
    """Correlation losses of positive pairs (the two views of an image) and negative pairs (other images).

    Args:
        cfg: has feature_samples, neg_samples, shift_value, shift_bias, pointwise, zero_clamp and stabalize.
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
            feats: keys of the image, B×C×h×w.
            feats_pos: keys of its positive.
            feats_pos_aug: keys of the positive's augmented view.
            code: codes of the image, B×D×h×w.
            code_pos: codes of its positive.
            code_pos_aug: codes of the positive's augmented view.
            coords: 3×B×s×s×2 in [-1, 1], the points of the image, the positive and the augmented view; None draws
                them uniformly.
            perms: n×B indices, each image's negative; None draws ``neg_samples`` permutations, but none for a batch
                of one, which holds no other image: its negative losses and correlations are zero.

        Returns:
            ``pos_inter_loss`` (scalar mean), ``pos_inter_cd`` (B×s×s×s×s), and ``neg_inter_loss`` and
            ``neg_inter_cd`` (n·B×s×s×s×s); float32.
        """
        with torch.autocast(feats.device.type, enabled=False):
            if coords is None:
                coords = self.random_coords(len(feats), feats.device)
            if perms is None:
                perms = self.random_perms(len(feats), feats.device)
            here, there, augmented = coords.unbind(0)
            pos_loss, pos_cd = self._pair(
                sample(feats_pos_aug, augmented), sample(feats_pos, there),
                sample(code_pos_aug, augmented), sample(code_pos, there), positive=True,
            )  # fmt: skip
            points, code_points = sample(feats, here), sample(code, here)
            negatives = [
                self._pair(points, sample(feats[perm], there), code_points, sample(code[perm], there), positive=False)
                for perm in perms
            ] or [(torch.zeros_like(pos_loss), torch.zeros_like(pos_cd))]
        return {
            "pos_inter_loss": pos_loss.mean(),
            "pos_inter_cd": pos_cd,
            "neg_inter_loss": torch.cat([loss for loss, _ in negatives]),
            "neg_inter_cd": torch.cat([cd for _, cd in negatives]),
        }

    def random_coords(self, batch_size: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Three independent uniform coordinate sets, 3×B×s×s×2 in [-1, 1]; a generator is one of the device."""
        s = self.feature_samples
        return torch.rand(3, batch_size, s, s, 2, device=device, generator=generator) * 2 - 1

    def random_perms(self, batch_size: int, device: torch.device) -> Tensor:
        """``neg_samples`` negatives of each image, n×B; 0×1 for a batch of one."""
        if batch_size == 1:
            return torch.empty(0, 1, dtype=torch.long, device=device)
        return torch.stack([negative_permutation(batch_size, device) for _ in range(self.neg_samples)])

    def _pair(self, f1: Tensor, f2: Tensor, c1: Tensor, c2: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
        """Loss and code correlation of every point of the first image with every point of the second."""
        with torch.no_grad():
            fd = correlation(f1, f2)
            mean_fd = fd.mean()
            if self.pointwise:
                fd -= fd.mean(dim=(3, 4), keepdim=True)
                fd += mean_fd - fd.mean()
        cd = correlation(c1, c2)
        # The gradient through mean(cd) is part of the method: without it the gradient is another one.
        if positive:
            shift = (mean_fd - cd.mean() - self.shift_bias).abs()
        else:
            shift = (mean_fd + cd.mean() - self.shift_bias) * self.shift_value
        return -cd.clamp(self.lower_limit, self.upper_limit) * (fd - shift), cd


def sample(features: Tensor, coords: Tensor) -> Tensor:
    """Bilinear samples of B×C×h×w at B×s×s×2 points in [-1, 1] (x, y), as B×C×s×s with the two s transposed."""
    features, coords = features.float(), coords.transpose(1, 2)
    if torch.are_deterministic_algorithms_enabled():
        return sample_by_gathering(features, coords)
    return F.grid_sample(features, coords, mode="bilinear", padding_mode="border", align_corners=True)


def sample_by_gathering(features: Tensor, points: Tensor) -> Tensor:
    """What ``grid_sample`` gives, B×C×h×w at B×i×j×2 points → B×C×i×j; its backward on a GPU repeats bit by bit.

    That of ``grid_sample`` adds up in any order, so that torch refuses it where algorithms must be deterministic.
    """
    n_channels, h, w = features.shape[1:]
    flat = features.flatten(2)
    limits = torch.tensor([w - 1, h - 1], dtype=points.dtype, device=points.device)
    places = torch.minimum(((points + 1) / 2 * limits).clamp(min=0), limits).flatten(1, 2)
    first = places.floor()
    share = places - first
    samples = features.new_zeros(len(features), n_channels, places.shape[1])
    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        step = torch.tensor(corner, dtype=points.dtype, device=points.device)
        x, y = torch.minimum(first + step, limits).long().unbind(2)
        weight = torch.where(step > 0, share, 1 - share).prod(dim=2)
        index = (y * w + x)[:, None].expand(-1, n_channels, -1)
        samples = samples + flat.gather(2, index) * weight[:, None]
    return samples.unflatten(2, points.shape[1:3])


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of all positions of two maps, B×C×h×w and B×C×i×j → B×h×w×i×j."""
    return torch.einsum("bchw,bcij->bhwij", F.normalize(a, dim=1, eps=NORM_EPS), F.normalize(b, dim=1, eps=NORM_EPS))


def negative_permutation(batch_size: int, device: torch.device) -> Tensor:
    """Each image's negative: a random permutation whose fixed points move on by one.

    The result need not be a permutation; in a batch of one the image is its own negative.
    """
    perm = torch.randperm(batch_size, device=device)
    fixed = perm == torch.arange(batch_size, device=device)
    return torch.where(fixed, (perm + 1) % batch_size, perm)
