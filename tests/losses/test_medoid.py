import numpy as np
import pytest
import torch

from eagle.losses import medoid
from eagle.losses.medoid import medoids_by_label, medoids_by_mask, medoids_of_images

BOTH_FORMS = pytest.mark.parametrize("form", [medoids_by_label, medoids_by_mask])


def by_loop(patches, labels, n_labels):
    """Medoids from the definition, in float64."""
    points, chosen = patches.double().numpy(), []
    for label in range(n_labels):
        members = np.flatnonzero(labels.numpy() == label)
        sums = [sum(np.linalg.norm(points[i] - points[j]) for j in members) for i in members]
        chosen.append(int(members[np.argmin(sums)]) if len(members) else 0)
    return chosen


@BOTH_FORMS
@pytest.mark.parametrize("block", [4, 16, 1000])
def test_medoids__equal_a_loop(monkeypatch, form, block):
    """For any block size; label 3 has no members."""
    monkeypatch.setattr(medoid, "ROW_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(60, 5, generator=generator)
    labels = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (60,), generator=generator)]
    assert form(patches, labels, 6).tolist() == by_loop(patches, labels, 6)


@BOTH_FORMS
def test_medoids__ties_go_to_the_first_member(form):
    """Distances are integers, so ties are exact."""
    patches = torch.tensor([[0.0], [5.0], [0.0], [8.0], [8.0], [5.0]])
    labels = torch.tensor([1, 0, 1, 2, 2, 0])
    assert form(patches, labels, 3).tolist() == [1, 0, 3] == by_loop(patches, labels, 3)


@BOTH_FORMS
def test_medoids__one_member_and_one_label(form):
    patches = torch.randn(9, 4)
    assert form(patches[:1], torch.zeros(1, dtype=torch.long), 2).tolist() == [0, 0]
    labels = torch.ones(9, dtype=torch.long)
    assert form(patches, labels, 2).tolist() == by_loop(patches, labels, 2)


def test_medoids_of_images__are_those_of_each_image_alone():
    """Label 3 has no members, and one image has a single label."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(4, 30, 5, generator=generator)
    labels = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (4, 30), generator=generator)]
    labels[2] = 1
    found = medoids_of_images(patches, labels, 6)
    assert found.tolist() == [by_loop(*image, 6) for image in zip(patches, labels, strict=True)]
