"""Eigenvectors and cues of single images against cases that can be worked out, and against training."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.eicue import eicue, laplacian_eigenvectors
from eagle.spectral.laplacian import normalized_laplacian
from eagle.visualization.decomposition import BackboneDecomposer, SegmenterDecomposer, Settings
from eagle.visualization.label_maps import numbered_by_size, numbered_like

H, W = 4, 6


def halves(left=-1.5, right=1.5):
    """An image whose left and right half are flat, in patches of one pixel, 1×3×H×W."""
    img = torch.full((1, 3, H, W), left)
    img[..., W // 2 :] = right
    return img


def by_colour(img):
    """Keys that point one way in dark patches and another way in light ones, of any length; 1×4×H×W."""
    light = (img[:, :1] > 0).float()
    lengths = torch.linspace(0.5, 3, H * W).reshape(1, 1, H, W)
    return lengths * torch.cat([1 - light, 0.6 * (1 - light) + light, light, 0 * light], dim=1)


class ByColour(torch.nn.Module):
    patch_size = 1

    def forward(self, img):
        return by_colour(img)


@pytest.mark.parametrize("color_mode", ["released", "paper"])
def test_backbone__two_flat_halves_are_what_the_first_eigenvector_separates(color_mode):
    """With an affinity of ones within halves and c across, L has the eigenvectors 1 and ±1, and a null space beside."""
    decomposition = BackboneDecomposer(ByColour(), Settings(1, 2, color_mode, 0))(halves())
    (first,) = decomposition.eigenvectors
    assert first.shape == (H, W)
    value = 1 / np.sqrt(H * W)
    sign = np.sign(first[0, 0])
    assert np.allclose(first[:, : W // 2], sign * value, atol=1e-4)
    assert np.allclose(first[:, W // 2 :], -sign * value, atol=1e-4)
    is_right = np.arange(W)[None].repeat(H, axis=0) >= W // 2
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
    decomposition = SegmenterDecomposer(segmenter, Settings(3, None, "released", 0))(img)
    with torch.no_grad():
        _, code = segmenter.net.keys_and_code(img)
        vectors, _ = segmenter._eigenvectors(img, img, code, code)
        _, cue = eicue(vectors, (6, 8), segmenter.train_cluster_probe_eigen)
    assert np.allclose(decomposition.eigenvectors, vectors[0, :, 1:].T.reshape(3, 6, 8), atol=1e-4)
    assert np.array_equal(decomposition.cue, numbered_by_size(cue[0].numpy()))
    assert len(np.unique(decomposition.kmeans)) == decomposition.cue.max() + 1 > 2, "as many clusters as labels"
    assert np.array_equal(decomposition.kmeans, numbered_like(decomposition.kmeans, decomposition.cue))


def test_segmenter__more_or_fewer_eigenvectors_leave_the_cue_alone(segmenter, img):
    few, many = (SegmenterDecomposer(segmenter, Settings(n, 5, "released", 0))(img) for n in (1, 6))
    assert (len(few.eigenvectors), len(many.eigenvectors)) == (1, 6)
    assert np.allclose(few.eigenvectors[0], many.eigenvectors[0], atol=1e-3)
    assert np.array_equal(few.cue, many.cue)
    assert len(np.unique(many.kmeans)) == 5


def test_segmenter__colours_enter_as_asked(segmenter, img):
    """Each map is an eigenvector of the Laplacian with those colours, and only of that one."""
    with torch.no_grad():
        _, code = segmenter.net.keys_and_code(img)
    for mode, other in (("released", "paper"), ("paper", "released")):
        vectors = SegmenterDecomposer(segmenter, Settings(3, None, mode, 0))(img).eigenvectors.reshape(3, -1)
        residual = {}
        for colors in (mode, other):
            affinity = feature_affinity(code.flatten(2).transpose(1, 2)) + color_affinity(img, (6, 8), colors)
            laplacian = normalized_laplacian(affinity)[0][0].numpy()
            product = vectors @ laplacian
            quotient = (product * vectors).sum(axis=1, keepdims=True)
            residual[colors] = np.abs(product - quotient * vectors).max()
        assert residual[mode] < 1e-4 < residual[other]


def test_backbone__keys_are_normalised_before_the_affinity(img):
    class Keys(torch.nn.Module):
        patch_size = 8

        def forward(self, img):
            generator = torch.Generator().manual_seed(2)
            return torch.randn(1, 5, 6, 8, generator=generator) * torch.logspace(-1, 1, 48).reshape(1, 1, 6, 8)

    decomposition = BackboneDecomposer(Keys(), Settings(2, None, "released", 0))(img)
    vectors = laplacian_eigenvectors(F.normalize(Keys()(img), dim=1), img, 3)
    assert np.allclose(decomposition.eigenvectors, vectors[0, :, 1:].T.reshape(2, 6, 8), atol=1e-4)
    assert decomposition.cue.max() + 1 == len(np.unique(decomposition.kmeans)) == 8
