"""Cues of single images: parts that are known, numbers of parts, and small graphs."""

import pytest
import torch

from eagle.spectral.eigensolver import smallest_eigenpairs
from eagle.spectral.image_cue import cosine_kmeans_of_images, image_cue, parts_by_eigengap
from eagle.spectral.laplacian import normalized_laplacian

K = 5  # eigenvectors, hence at most 5 parts


def pairs_of_parts(assignments, between=0.02, seed=0):
    """Eigenpairs of graphs with strong edges within the given parts and weak ones between them; B×N labels."""
    noise = torch.rand(len(assignments), *[assignments.shape[1]] * 2, generator=torch.Generator().manual_seed(seed))
    within = (assignments[:, :, None] == assignments[:, None, :]).float()
    affinity = within * (0.8 + 0.2 * (noise + noise.mT)) + between * (noise + noise.mT)
    values, vectors = smallest_eigenpairs(*normalized_laplacian(affinity), K + 1, "eigh")
    return values, vectors[:, :, :K]


def random_parts(counts, n=60):
    generator = torch.Generator().manual_seed(1)
    labels = [torch.arange(n) % count for count in counts]
    return torch.stack([row[torch.randperm(n, generator=generator)] for row in labels])


def same_partition(a, b):
    return torch.equal(a[:, None] == a, b[:, None] == b)


def test_image_cue__finds_the_parts_of_each_image_and_their_number():
    assignments = random_parts([2, 3, 4, 5])
    cue = image_cue(*pairs_of_parts(assignments), grid=(6, 10))
    assert cue.shape == (4, 6, 10)
    for found, wanted in zip(cue.flatten(1), assignments, strict=True):
        assert same_partition(found, wanted)
        assert found.max() == wanted.max(), "labels are numbered from 0"


def test_image_cue__depends_on_neither_signs_nor_other_images():
    values, vectors = pairs_of_parts(random_parts([3, 4]), between=0.5)
    cue = image_cue(values, vectors, (6, 10))
    flips = torch.tensor([1.0, -1, 1, -1, -1])
    assert torch.equal(image_cue(values, vectors * flips, (6, 10)), cue)
    assert torch.equal(image_cue(values[1:], vectors[1:], (6, 10)), cue[1:])


def test_parts_by_eigengap__are_at_the_largest_gap_from_two_on():
    """The gap after the first eigenvalue, the largest in a connected graph, does not count."""
    values = torch.tensor([[0, 0.5, 0.6, 0.9, 1.0], [0, 0.5, 0.9, 0.95, 1.0], [0, 0.1, 0.2, 0.3, 0.9]])
    assert parts_by_eigengap(values).tolist() == [3, 2, 4]
    assert parts_by_eigengap(values[:, :2]).tolist() == [2, 2, 2]


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (1, 3), (2, 2)])
@pytest.mark.parametrize("k", [2, 4])
def test_image_cue__small_and_constant_images_have_labels_in_range(grid, k):
    n = grid[0] * grid[1]
    values, vectors = smallest_eigenpairs(*normalized_laplacian(torch.ones(2, n, n)), k + 1)
    vectors = torch.nn.functional.pad(vectors, (0, k + 1 - vectors.shape[2]))[:, :, :k]
    cue = image_cue(values, vectors, grid)
    assert cue.shape == (2, *grid)
    assert cue.min() >= 0
    assert cue.max() < k


def test_cosine_kmeans__moves_centres_to_the_means_of_their_directions():
    """The farthest-point start alone, patch 0 and the opposite patch 3, would put patch 2 to patch 0."""
    angles = torch.tensor([0.0, 10, 85, 180, 120, 110, 115, 112]).deg2rad()
    rows = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([2.0, *[1] * 7])[:, None]
    labels = cosine_kmeans_of_images(rows[None], torch.tensor([2]), 3)
    assert labels.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1]]
