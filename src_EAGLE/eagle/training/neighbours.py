"""Nearest neighbours of images by their mean keys: STEGO's positives (STEGO section 3, ``precompute_knns.py``)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from eagle.errors import ConfigError
from eagle.spectral.eicue import full_float32

# As in STEGO's configurations (num_neighbors).
N_NEIGHBOURS = 7
# Rows of the similarity matrix in memory at once: 0.6 GB for 600,000 images.
ROW_BLOCK = 256


@torch.no_grad()
def nearest_neighbours(features: Tensor, usable: Tensor) -> Tensor:
    """The ``N_NEIGHBOURS`` other images of largest cosine similarity, nearest first.

    Args:
        features: one row per image, n×C float32.
        usable: n bool, whether the image may be a neighbour.

    Returns:
        n×min(7, usable images - 1) int64.

    Raises:
        ConfigError: there are fewer than two usable images.
    """
    count = min(N_NEIGHBOURS, int(usable.sum()) - 1)
    if count < 1:
        raise ConfigError("positives: knn needs at least two readable training images; set positives=self")
    unit = F.normalize(features, dim=1)
    found = []
    with full_float32(features.device):
        for start in range(0, len(unit), ROW_BLOCK):
            similarity = (unit[start : start + ROW_BLOCK] @ unit.T).masked_fill_(~usable, -torch.inf)
            similarity.diagonal(start).fill_(-torch.inf)
            found.append(similarity.topk(count, dim=1).indices)
    return torch.cat(found)
