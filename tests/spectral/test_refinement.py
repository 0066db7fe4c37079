import numpy as np
import pytest
import torch

from eagle.spectral import refinement
from eagle.spectral.refinement import spectral_refinement


def random_case(batch=2, n_classes=3, grid=(3, 4), dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randn(batch, n_classes, *grid, generator=generator).softmax(dim=1)
    return probs, torch.randn(batch, dim, *grid, generator=generator)


def by_inverse(probs, features, smoothing):
    """The formula for one image, with a dense inverse in float64."""
    tokens = features.flatten(1).T.double().numpy()
    tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    affinity = np.maximum(tokens @ tokens.T, 0) ** 8
    root = np.sqrt(affinity.sum(axis=1))
    laplacian = np.eye(len(root)) - affinity / np.outer(root, root)
    inverse = np.linalg.inv(np.eye(len(root)) + smoothing * laplacian)
    refined = np.diag(1 / root) @ inverse @ np.diag(root) @ probs.flatten(1).T.double().numpy()
    return torch.from_numpy(refined.T).reshape(probs.shape).float()


@pytest.mark.parametrize("smoothing", [0.5, 10.0, 100.0])
def test_refinement__equals_the_dense_inverse(smoothing):
    probs, features = random_case()
    refined = spectral_refinement(probs, features, smoothing)
    for image in range(2):
        expected = by_inverse(probs[image], features[image], smoothing)
        torch.testing.assert_close(refined[image], expected, atol=1e-5, rtol=0)
    assert torch.allclose(refined.sum(dim=1), torch.ones(2, 3, 4), atol=1e-5), "probabilities remain probabilities"


@pytest.mark.parametrize("smoothing", [10.0, 100.0])
def test_refinement__constant_codes_draw_every_patch_to_the_mean(smoothing):
    probs, _ = random_case()
    refined = spectral_refinement(probs, torch.ones(2, 5, 3, 4), smoothing)
    mean = probs.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(refined, (probs + smoothing * mean) / (1 + smoothing), atol=1e-4, rtol=0)


def test_refinement__one_patch_keeps_its_probabilities():
    probs, features = random_case(grid=(1, 1))
    torch.testing.assert_close(spectral_refinement(probs, features), probs)


def test_refinement__a_patch_without_a_code_keeps_its_probabilities():
    probs, features = random_case()
    features[0, :, 1, 2] = 0
    refined = spectral_refinement(probs, features, 10.0)
    torch.testing.assert_close(refined[0, :, 1, 2], probs[0, :, 1, 2])


def test_refinement__images_do_not_depend_on_their_batch(monkeypatch):
    probs, features = random_case(batch=3)
    together = spectral_refinement(probs, features)
    alone = torch.cat([spectral_refinement(probs[i : i + 1], features[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    monkeypatch.setattr(refinement, "MOST_ENTRIES", 1)
    torch.testing.assert_close(spectral_refinement(probs, features), together)


def test_refinement__is_in_full_float32_whatever_is_set_outside():
    probs, features = random_case()
    expected = spectral_refinement(probs, features)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(spectral_refinement(probs, features), expected, rtol=0, atol=0)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_refinement__large_grids_are_refined_on_a_coarser_one(monkeypatch):
    monkeypatch.setattr(refinement, "MOST_PATCHES", 16)
    probs, features = random_case(grid=(4, 16))
    refined = spectral_refinement(probs, features)
    assert refined.shape == (2, 3, 2, 8)
    assert torch.allclose(refined.sum(dim=1), torch.ones(2, 2, 8), atol=1e-5)
