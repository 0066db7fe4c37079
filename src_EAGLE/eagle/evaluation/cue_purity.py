"""Purity of EiCue labels against classes, within images and over all of them: do equal labels mean equal classes?"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class CuePurity(NamedTuple):
    """Percentage of labelled pixels whose class is the most frequent one of their cue label.

    Attributes:
        within: a label of each image stands on its own.
        over: a label is the same in all images, as prototypes of the whole batch take it.
    """

    within: float
    over: float


def cue_purity(cue: Tensor, label: Tensor) -> CuePurity:
    """Purity of the cues of some images; NaN without labelled pixels.

    More labels make any partition purer. ``cue_purity(torch.zeros_like(cue), label)`` is the purity of one label for
    each image (within) and for all images (over), the values to compare with.

    Args:
        cue: B×h×w int64 labels ≥ 0, one per patch.
        label: B×H×W int64 classes, negative = void; each pixel has the cue label of the nearest patch.
    """
    n_images, n_cues, n_classes = len(cue), int(cue.max()) + 1, int(label.max().clamp(min=0)) + 1
    pixels = F.interpolate(cue[:, None].double(), label.shape[1:], mode="nearest-exact")[:, 0].long()
    image = torch.arange(n_images, device=cue.device)[:, None, None]
    cells = ((image * n_cues + pixels) * n_classes + label)[label >= 0]
    counts = cells.bincount(minlength=n_images * n_cues * n_classes).view(n_images, n_cues, n_classes)
    total = counts.sum()
    return CuePurity(
        within=float(100 * counts.amax(dim=2).sum() / total),
        over=float(100 * counts.sum(dim=0).amax(dim=1).sum() / total),
    )
