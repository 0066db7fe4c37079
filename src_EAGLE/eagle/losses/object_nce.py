"""Object-centric contrastive loss ObjNCE (docs/method.md §5; paper equations 8 to 10).

Φ_l is the prototype of the patches with cue label l, CE a patch's cross entropy to its own label, and w its semantic
weight (``patch_weights``); all means are over patches:

    local  = mean(w · CE(Z Φᵀ / τ)),    global = mean(w · CE(Z̃ Φᵀ / τ))
    ObjNCE = ½ [(1 - g) · local + g · global],    g = global_loss_weight, τ = contrastive_temp

``prototype_scope`` says which patches share a prototype, and which prototypes are a patch's negatives: those of the
whole batch, as published, or of the patch's own image, so that label l of two images means two objects.

A prototype of ``centroid_mode: prototype`` is a medoid: the patch of its label with the least total distance to the
label's other patches. λ, the loss's weight in the total (docs/method.md §8), is ``lambda_at``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.config.validation import label_smoothing

# Rows of the distance matrix in memory at once.
ROW_BLOCK = 1024
NORM_EPS = 1e-12
# The patches' similarity R is computed in N_TILES × N_TILES tiles, upper triangle only.
N_TILES = 4
# Tiles of R are faster than the C×C Gram matrix while N ≤ 3C.
PATCHES_PER_CHANNEL = 3


class ObjectNCELoss(nn.Module):
    """Pull each patch towards the prototype of its object, within its view and across views.

    Args:
        cfg: has contrastive_temp, global_loss_weight, centroid_mode and label_smoothing; optionally prototype_scope,
            "batch" if missing.
        n_classes: rows of the learnable prototype table of ``centroid_mode: learned``; labels are taken modulo it.
        dim: channels of that table; None for ``cfg.dim``.

    Example:
        >>> import torch
        >>> from torch.nn.functional import normalize
        >>> from eagle import ObjectNCELoss
        >>> from eagle.config.schema import TrainConfig
        >>> z, z_aug = (normalize(torch.randn(2 * 16, 32), dim=1) for _ in range(2))
        >>> cue, weights = torch.randint(5, (2, 4, 4)), torch.ones(2, 16)
        >>> ObjectNCELoss(TrainConfig(), n_classes=5)(z, z_aug, cue, weights).shape
        torch.Size([])
    """

    def __init__(self, cfg: Any, n_classes: int, dim: int | None = None) -> None:
        super().__init__()
        self.temperature: float = cfg.contrastive_temp
        self.global_weight: float = cfg.global_loss_weight
        self.centroid_mode: str = cfg.centroid_mode
        self.within_images: bool = getattr(cfg, "prototype_scope", "batch") == "image"
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing(cfg)
        self.learned_centroids: nn.Parameter | None = None
        if self.centroid_mode == "learned":
            self.learned_centroids = nn.Parameter(torch.randn(n_classes, cfg.dim if dim is None else dim))

    def forward(
        self, source: Tensor, target: Tensor, cue: Tensor, similarity: Tensor, n_labels: int | None = None
    ) -> Tensor:
        """ObjNCE of one direction, source → target.

        Args:
            source: Z, (B·N)×D unit vectors, from which the prototypes are made.
            target: Z̃, (B·N)×D, the same patches in the other view.
            cue: M, B×h×w int64 labels of the source.
            similarity: patch weights w, B×N, or matrices with these row means, B×N×N.
            n_labels: exclusive upper bound of the labels; None reads their maximum, which synchronises with the device.

        Returns:
            Scalar, float32.
        """
        with torch.autocast(source.device.type, enabled=False):
            source, target, labels = source.float(), target.float(), cue.flatten()
            weights = (similarity.mean(dim=2) if similarity.ndim == 3 else similarity).flatten().float()
            n_labels = int(labels.max()) + 1 if n_labels is None else n_labels
            if self.within_images:
                source, target, labels = (rows.unflatten(0, (len(cue), -1)) for rows in (source, target, labels))
            members = labels[..., None] == torch.arange(n_labels, device=labels.device)
            present = members.any(dim=-2)
            prototypes = self.prototypes(source, labels, members)
            local = self._contrast(source, prototypes, present, labels, weights)
            cross_view = self._contrast(target, prototypes, present, labels, weights)  # the global term
            return ((1 - self.global_weight) * local + self.global_weight * cross_view) / 2

    def prototypes(self, source: Tensor, labels: Tensor, members: Tensor) -> Tensor:
        """Prototypes Φ, K×D or B×K×D, with gradient; the row of a label without members is arbitrary.

        Args:
            source: patches, M×D of the whole batch or B×N×D by image.
            labels: M or B×N int64 in [0, K).
            members: M×K or B×N×K bool, the one-hot labels.
        """
        n_labels = members.shape[-1]
        if self.learned_centroids is not None:
            return self.learned_centroids[torch.arange(n_labels, device=labels.device) % self.n_classes]
        if self.centroid_mode == "mean":
            return members.mT.to(source.dtype) @ source / members.sum(dim=-2).clamp(min=1)[..., None]
        rows = medoids(source, labels, n_labels)
        if source.ndim == 3:
            return source.gather(1, rows[:, :, None].expand(-1, -1, source.shape[2]))
        return source.index_select(0, rows)

    def _contrast(
        self, patches: Tensor, prototypes: Tensor, present: Tensor, labels: Tensor, weights: Tensor
    ) -> Tensor:
        logits = (patches @ prototypes.mT / self.temperature).masked_fill(~present[..., None, :], -torch.inf)
        if self.label_smoothing == 0:
            return (F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none") * weights).mean()
        # As in the released Cityscapes code: the loss is averaged first, so the weights act as one global factor.
        return (_smoothed_cross_entropy(logits, present, labels, self.label_smoothing) * weights).mean()


def _smoothed_cross_entropy(logits: Tensor, present: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean cross entropy with label smoothing: mass ``smoothing`` is spread over the other labels present."""
    present = present[..., None, :]
    off_target = smoothing / (present.sum(dim=-1, keepdim=True) - 1).clamp(min=1)
    targets = (off_target * present).expand_as(logits).scatter(-1, labels[..., None], 1 - smoothing)
    log_probs = F.log_softmax(logits, dim=-1).masked_fill(~present, 0)
    return -(targets * log_probs).sum(dim=-1).mean()


@torch.no_grad()
def patch_weights(keys: Tensor) -> Tensor:
    """Semantic weight of patch i (eq. 9): the mean over j of R[i, j], R = KᵀK (N×N) with columns of unit length.

    With c_j the length of column j of KᵀK, the mean is kᵢ · Σ_j (k_j / c_j) / N, so R is never stored.

    Args:
        keys: K, B×C×h×w.

    Returns:
        B×N float32, N = h·w.
    """
    with torch.autocast(keys.device.type, enabled=False):
        tokens = keys.float().flatten(2)
        n_channels, n_patches = tokens.shape[1:]
        use_tiles = n_patches <= PATCHES_PER_CHANNEL * n_channels
        squares = _squared_lengths_by_tiles(tokens) if use_tiles else _squared_lengths_by_gram(tokens)
        scale = 1 / (squares.clamp(min=0).sqrt().clamp(min=NORM_EPS) * n_patches)
        return torch.bmm(torch.bmm(tokens, scale[:, :, None]).transpose(1, 2), tokens).squeeze(1)


def _squared_lengths_by_tiles(tokens: Tensor) -> Tensor:
    """Squared lengths c_j² of the columns of KᵀK, B×C×N → B×N, summed over its tiles."""
    chunks = tokens.chunk(N_TILES, dim=2)
    squares = [torch.zeros_like(chunk[:, 0]) for chunk in chunks]
    for i, rows in enumerate(chunks):
        for j, columns in enumerate(chunks[i:], start=i):
            tile = torch.bmm(rows.transpose(1, 2), columns).square_()
            squares[j] += tile.sum(dim=1)
            if j > i:
                squares[i] += tile.sum(dim=2)
    return torch.cat(squares, dim=1)


def _squared_lengths_by_gram(tokens: Tensor) -> Tensor:
    """The same from the C×C Gram matrix G = Σ_i kᵢkᵢᵀ: c_j² = k_jᵀ G k_j."""
    gram = torch.bmm(tokens, tokens.transpose(1, 2))
    return (torch.bmm(gram, tokens) * tokens).sum(dim=1)


def lambda_at(cfg: Any, step: int) -> float:
    """λ in [0, momentum_limit] after ``step`` optimiser steps, each on one batch.

    Args:
        cfg: has momentum_limit, step_schedulers and lambda_schedule: "released" switches from 0 to momentum_limit
            after step ``step_schedulers``, "paper" ramps up linearly until then.
        step: steps done so far.
    """
    limit = float(cfg.momentum_limit)
    if cfg.lambda_schedule == "released":
        return limit if step > cfg.step_schedulers else 0.0
    return limit * min(1.0, step / cfg.step_schedulers) if cfg.step_schedulers else limit


def medoids(patches: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """Row of each label's medoid, the member with the least sum of Euclidean distances to all members of its label.

    Ties go to the first member. The CPU computes distances within each label only. A GPU computes the upper triangle
    of all distances and masks it, because reading the label sizes would synchronise it with the host. So do
    several images, in one pass.

    Args:
        patches: M×D floating point, or B×M×D for the medoids of each image on its own.
        labels: M or B×M int64 in [0, n_labels).
        n_labels: number of labels.

    Returns:
        n_labels or B×n_labels int64 row numbers; 0 for a label without members.
    """
    by_label = patches.ndim == 2 and patches.device.type == "cpu"
    return (medoids_by_label if by_label else medoids_by_mask)(patches, labels, n_labels)


@torch.no_grad()
def medoids_by_label(patches: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """``medoids``, one label at a time."""
    chosen = torch.zeros(n_labels, dtype=torch.long, device=patches.device)
    sizes = labels.bincount(minlength=n_labels).tolist()
    for label, rows in enumerate(labels.argsort(stable=True).split(sizes)):
        if len(rows):
            members = patches[rows]
            sums = [torch.cdist(block, members).sum(dim=1) for block in members.split(ROW_BLOCK)]
            chosen[label] = rows[torch.cat(sums).argmin()]
    return chosen


@torch.no_grad()
def medoids_by_mask(patches: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """``medoids`` from masked blocks of all distances, without synchronising with the device."""
    n_patches = patches.shape[-2]
    sums = torch.zeros_like(patches[..., 0])
    for start in range(0, n_patches, ROW_BLOCK):
        stop = min(start + ROW_BLOCK, n_patches)
        distances = torch.cdist(patches[..., start:stop, :], patches[..., start:, :])
        distances *= labels[..., start:stop, None] == labels[..., None, start:]
        sums[..., start:stop] += distances.sum(dim=-1)
        sums[..., stop:] += distances[..., stop - start :].sum(dim=-2)
    member = labels[..., None, :] == torch.arange(n_labels, device=labels.device)[:, None]
    return torch.where(member, sums[..., None, :], torch.inf).argmin(dim=-1)
