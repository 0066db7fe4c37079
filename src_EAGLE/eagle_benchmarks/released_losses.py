"""The released losses, written naively from the method description (§5, §7)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NORM_EPS = 1e-10
CODE_CORRELATION_LIMIT = 0.8


def correspondence(
    cfg: Any,
    keys: tuple[Tensor, Tensor, Tensor],
    codes: tuple[Tensor, Tensor, Tensor],
    coords: Tensor | None = None,
    perms: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean loss of the positive pairs and mean loss of the negative pairs.

    Args:
        cfg: the training configuration, with its default clamps and centring.
        keys: K of the image, its positive and the augmented view.
        codes: their codes.
        coords: sampled points as in CorrespondenceLoss; None draws them.
        perms: negative images as in CorrespondenceLoss; None draws them.
    """
    size, device = len(keys[0]), keys[0].device
    if coords is None:
        coords = torch.rand(3, size, cfg.feature_samples, cfg.feature_samples, 2, device=device) * 2 - 1
    if perms is None:
        perms = torch.stack([_other_images(size, device) for _ in range(cfg.neg_samples)])
    k2, s2 = _sampled(keys[1], coords[1]), _sampled(codes[1], coords[1])
    positive = _pair(_sampled(keys[2], coords[2]), k2, _sampled(codes[2], coords[2]), s2, cfg, positive=True)
    k1, s1 = _sampled(keys[0], coords[0]), _sampled(codes[0], coords[0])
    negatives = []
    for perm in perms:
        k2, s2 = _sampled(keys[0][perm], coords[1]), _sampled(codes[0][perm], coords[1])
        negatives.append(_pair(k1, k2, s1, s2, cfg, positive=False))
    return positive.mean(), torch.cat(negatives).mean()


def object_nce(cfg: Any, source: Tensor, target: Tensor, cue: Tensor, keys: Tensor) -> Tensor:
    """ObjNCE in one direction, with medoid prototypes computed label by label and COCO-Stuff's per-patch weights."""
    tokens = keys.flatten(2)
    similarity = F.normalize(torch.bmm(tokens.transpose(1, 2), tokens), dim=1)
    weights = similarity.mean(dim=2).flatten()
    labels, own_label = cue.flatten().unique(return_inverse=True)
    prototypes = []
    for label in labels:
        members = source[cue.flatten() == label]
        with torch.no_grad():
            medoid = torch.cdist(members, members).sum(dim=1).argmin()
        prototypes.append(members[medoid])
    table = torch.stack(prototypes)
    local, cross_view = (
        (F.cross_entropy(view @ table.T / cfg.contrastive_temp, own_label, reduction="none") * weights).mean()
        for view in (source, target)
    )
    return ((1 - cfg.global_loss_weight) * local + cfg.global_loss_weight * cross_view) / 2


def _pair(k1: Tensor, k2: Tensor, s1: Tensor, s2: Tensor, cfg: Any, positive: bool) -> Tensor:
    with torch.no_grad():
        fd = _correlation(k1, k2)
        old_mean = fd.mean()
        fd = fd - fd.mean(dim=(3, 4), keepdim=True)
        fd = fd - fd.mean() + old_mean
    cd = _correlation(s1, s2)
    if positive:
        shift = (fd.mean() - cd.mean() - cfg.shift_bias).abs()
    else:
        shift = (fd.mean() + cd.mean() - cfg.shift_bias) * cfg.shift_value
    return -cd.clamp(0, CODE_CORRELATION_LIMIT) * (fd - shift)


def _sampled(features: Tensor, coords: Tensor) -> Tensor:
    return F.grid_sample(features, coords.permute(0, 2, 1, 3), padding_mode="border", align_corners=True)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("nchw,ncij->nhwij", F.normalize(a, dim=1, eps=NORM_EPS), F.normalize(b, dim=1, eps=NORM_EPS))


def _other_images(size: int, device: torch.device) -> Tensor:
    perm = torch.randperm(size, device=device)
    perm[perm == torch.arange(size, device=device)] += 1
    return perm % size
