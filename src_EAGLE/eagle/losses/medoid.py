"""Medoids: the member of each label with the least total distance to the other members (method §5)."""

import torch
from torch import Tensor

# Rows of the distance matrix in memory at once.
ROW_BLOCK = 1024


def medoids(patches: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """Row of each label's medoid, the member with the least sum of Euclidean distances to all members of its label.

    Ties go to the first member. The CPU computes distances within each label only. A GPU computes the upper triangle
    of all distances and masks it, because reading the label sizes would synchronise it with the host.

    Args:
        patches: M×D floating point.
        labels: M int64 in [0, n_labels).
        n_labels: number of labels.

    Returns:
        n_labels int64 row numbers; 0 for a label without members.
    """
    return (medoids_by_label if patches.device.type == "cpu" else medoids_by_mask)(patches, labels, n_labels)


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
    sums = patches.new_zeros(len(patches))
    for start in range(0, len(patches), ROW_BLOCK):
        block = slice(start, min(start + ROW_BLOCK, len(patches)))
        distances = torch.cdist(patches[block], patches[start:])
        distances *= labels[block, None] == labels[start:]
        sums[block] += distances.sum(dim=1)
        sums[block.stop :] += distances[:, block.stop - start :].sum(dim=0)
    member = labels == torch.arange(n_labels, device=labels.device)[:, None]
    return torch.where(member, sums, torch.inf).argmin(dim=1)


@torch.no_grad()
def medoids_of_images(patches: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """``medoids`` of each image on its own, in one pass over all images and without synchronising with the device.

    Args:
        patches: B×N×D floating point.
        labels: B×N int64 in [0, n_labels).
        n_labels: number of labels.

    Returns:
        B×n_labels int64 patch numbers within the image; 0 for a label without members.
    """
    distances = torch.cdist(patches, patches)
    distances *= labels[:, :, None] == labels[:, None, :]
    sums = distances.sum(dim=2)[:, None]
    member = labels[:, None] == torch.arange(n_labels, device=labels.device)[:, None]
    return torch.where(member, sums, torch.inf).argmin(dim=2)
