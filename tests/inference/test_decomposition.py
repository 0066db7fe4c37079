"""Eigenvectors and cues of single images against cases that can be worked out, and against training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eagle.inference.decomposition import cosine_kmeans, decompose, numbered_by_size, numbered_like
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.eicue import eicue
from eagle.spectral.laplacian import normalized_laplacian

H, W = 4, 6


def options(n_eigenvectors=None, n_clusters=None):
    return SimpleNamespace(n_eigenvectors=n_eigenvectors, n_clusters=n_clusters, seed=0)


class ByColour(torch.nn.Module):
    """Keys that point one way in dark patches of one pixel and another way in light ones, of any length."""

    patch_size = 1

    def forward(self, img):
        light = (img[:, :1] > 0).float()
        lengths = torch.linspace(0.5, 3, H * W).reshape(1, 1, H, W)
        return lengths * torch.cat([1 - light, 0.6 * (1 - light) + light, light, 0 * light], dim=1)


def test_keys__two_flat_halves_are_what_the_first_eigenvector_separates():
    """With an affinity of ones within halves and c across, L has the eigenvectors 1 and ±1, and a null space beside."""
    img = torch.full((1, 3, H, W), -1.5)
    img[..., W // 2 :] = 1.5
    decomposition = decompose(ByColour(), None, img, options(1, 2))
    (first,) = decomposition.eigenvectors
    is_right = np.arange(W)[None].repeat(H, axis=0) >= W // 2
    assert np.allclose(first, np.where(is_right, -1, 1) * np.sign(first[0, 0]) / np.sqrt(H * W), atol=1e-4)
    for labels in (decomposition.cue, decomposition.kmeans):
        assert np.array_equal(labels == labels[0, 0], ~is_right)
    assert np.array_equal(decomposition.cue, decomposition.kmeans), "the same colours for the same places"


@pytest.fixture
def segmenter(make_config):
    torch.manual_seed(0)
    return LitUnsupervisedSegmenter(2, make_config(eigen_cluster=4, eigen_cluster_out=6)).eval()


@pytest.fixture
def img():
    return torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def test_segmenter__cue_is_the_trained_codebooks_on_trainings_eigenvectors(segmenter, img):
    decomposition = decompose(segmenter.net.model, segmenter, img, options())
    with torch.no_grad():
        code = segmenter(img)
        vectors, _ = segmenter._eigenvectors(img, img, code, code)
        _, cue = eicue(vectors, (6, 8), segmenter.train_cluster_probe_eigen)
    assert np.allclose(decomposition.eigenvectors, vectors[0, :, 1:].T.reshape(3, 6, 8), atol=1e-4)
    assert np.array_equal(decomposition.cue, numbered_by_size(cue[0].numpy()))
    assert len(np.unique(decomposition.kmeans)) == decomposition.cue.max() + 1 > 2, "as many clusters as labels"


def test_segmenter__colours_enter_as_in_training(make_config, img):
    """Each map is an eigenvector of the Laplacian with those colours, and only of that one."""
    for mode, other in (("released", "paper"), ("paper", "released")):
        torch.manual_seed(0)
        segmenter = LitUnsupervisedSegmenter(2, make_config(eigen_cluster=4, color_affinity=mode)).eval()
        with torch.no_grad():
            code = segmenter(img)
        vectors = decompose(segmenter.net.model, segmenter, img, options()).eigenvectors.reshape(3, -1)
        residual = {}
        for colors in (mode, other):
            affinity = feature_affinity(code.flatten(2).transpose(1, 2)) + color_affinity(img, (6, 8), colors)
            product = vectors @ normalized_laplacian(affinity)[0][0].numpy()
            quotient = (product * vectors).sum(axis=1, keepdims=True)
            residual[colors] = np.abs(product - quotient * vectors).max()
        assert residual[mode] < 1e-4 < residual[other]


@pytest.mark.parametrize(("n", "n_reference"), [(5, 3), (3, 5), (4, 4), (1, 6)])
def test_numbered_like__renames_one_to_one_and_agrees_with_itself(n, n_reference):
    rng = np.random.default_rng(0)
    labels, reference = rng.integers(0, n, (9, 11)), numbered_by_size(rng.integers(0, n_reference, (9, 11)))
    assert (np.diff(np.bincount(reference.ravel())) <= 0).all(), "the largest first"
    renamed = numbered_like(labels, reference)
    pairs = set(zip(labels.ravel().tolist(), renamed.ravel().tolist(), strict=True))
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs}) == n
    assert renamed.max() < max(n, n_reference)
    assert np.array_equal(numbered_like(rng.permutation(n_reference)[reference], reference), reference)


def test_cosine_kmeans__finds_directions_and_few_or_equal_patches_are_no_error(recwarn):
    expected = np.array([[0, 0, 1, 1], [0, 2, 2, 1]])
    features = torch.eye(3)[torch.from_numpy(expected)].permute(2, 0, 1) * torch.logspace(-2, 2, 8).reshape(2, 4)
    assert np.array_equal(numbered_like(cosine_kmeans(features, 3, seed=0), expected), expected)
    assert cosine_kmeans(torch.randn(4, 1, 2), 8, seed=0).shape == (1, 2)
    assert (cosine_kmeans(torch.ones(4, 3, 3), 3, seed=0) == 0).all()
    assert not len(recwarn)
