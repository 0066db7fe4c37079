import numpy as np
import pytest
import torch

from eagle.visualization.label_maps import cosine_kmeans, numbered_by_size, numbered_like


def test_numbered_by_size__largest_first_without_gaps():
    labels = np.array([[7, 7, 3], [7, 40, 40]])
    assert numbered_by_size(labels).tolist() == [[0, 0, 2], [0, 1, 1]]


def test_numbered_like__takes_the_names_that_agree_most():
    reference = np.array([[0, 0, 0, 1], [2, 2, 1, 1]])
    labels = np.array([[5, 5, 5, 9], [1, 1, 9, 5]])
    assert numbered_like(labels, reference).tolist() == [[0, 0, 0, 1], [2, 2, 1, 0]]


@pytest.mark.parametrize(("n", "n_reference"), [(5, 3), (3, 5), (4, 4), (1, 6)])
def test_numbered_like__renames_one_to_one_and_agrees_with_itself(n, n_reference):
    rng = np.random.default_rng(0)
    labels, reference = rng.integers(0, n, (9, 11)), numbered_by_size(rng.integers(0, n_reference, (9, 11)))
    renamed = numbered_like(labels, reference)
    pairs = set(zip(labels.ravel().tolist(), renamed.ravel().tolist(), strict=True))
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs}) == n
    assert renamed.max() < max(n, n_reference)
    assert np.array_equal(numbered_like(rng.permutation(n_reference)[reference], reference), reference)


def test_cosine_kmeans__finds_directions_whatever_their_lengths():
    directions = torch.eye(3)[torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1]])].permute(2, 0, 1)
    features = directions * torch.logspace(-2, 2, 8).reshape(2, 4)
    labels = cosine_kmeans(features, 3, seed=0)
    assert numbered_like(labels, np.array([[0, 0, 1, 1], [0, 2, 2, 1]])).tolist() == [[0, 0, 1, 1], [0, 2, 2, 1]]


def test_cosine_kmeans__few_or_equal_patches_are_no_error(recwarn):
    assert cosine_kmeans(torch.randn(4, 1, 2), 8, seed=0).shape == (1, 2)
    assert (cosine_kmeans(torch.ones(4, 3, 3), 3, seed=0) == 0).all()
    assert not len(recwarn)
