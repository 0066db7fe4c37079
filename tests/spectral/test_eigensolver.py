import numpy as np
import pytest
import scipy.linalg
import torch

from eagle.errors import ConfigError
from eagle.spectral import eigensolver
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.eigensolver import smallest_eigenpairs
from eagle.spectral.laplacian import normalized_laplacian

METHODS = ["eigh", "subspace"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "grid"), [("c_eigen_14x14_b2", (14, 14)), ("c_eigen_28x28_b1", (28, 28))])
def test_eigenpairs__published_values_and_vectors(golden, name, grid, method):
    data = golden.tensors(name)
    affinity = color_affinity(data["img"], grid) + feature_affinity(data["code"])
    laplacian, degree = normalized_laplacian(affinity)
    values, vectors = smallest_eigenpairs(laplacian, degree, 4, method)
    # The first eigenvalue is zero up to rounding, so errors are relative to the spectrum's scale.
    assert (values - data["eigenvalues"]).abs().max() / data["eigenvalues"].abs().max() < 1e-4
    cosines = (vectors * data["eigenvectors"]).sum(dim=1).abs()
    assert (cosines > 0.9999).all(), cosines


@pytest.mark.parametrize("method", METHODS)
def test_eigenpairs__equal_scipys_generalised_problem(method):
    """L v = λ v with v = D^½ u is (D - A) u = λ D u, which scipy solves on its own path."""
    affinity = torch.rand(2, 30, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    affinity = affinity @ affinity.transpose(1, 2)
    laplacian, degree = normalized_laplacian(affinity)
    values, vectors = smallest_eigenpairs(laplacian, degree, 4, method)
    for i in range(2):
        d = np.diag(degree[i].numpy())
        expected_values, expected = scipy.linalg.eigh(d - affinity[i].numpy(), d, subset_by_index=[0, 3])
        assert np.allclose(values[i].numpy(), expected_values, atol=1e-10)
        expected = np.sqrt(d) @ expected
        expected /= np.linalg.norm(expected, axis=0)
        assert np.allclose(np.abs((expected * vectors[i].numpy()).sum(axis=0)), 1, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_eigenpairs__fewer_patches_than_asked(method):
    laplacian, degree = normalized_laplacian(torch.ones(1, 1, 1))
    values, vectors = smallest_eigenpairs(laplacian, degree, 4, method)
    assert values.shape == (1, 1)
    assert vectors.shape == (1, 1, 1)


def test_eigenpairs__unknown_method():
    with pytest.raises(ConfigError, match="did you mean 'eigh'"):
        smallest_eigenpairs(torch.eye(2)[None], torch.ones(1, 2), 1, "eig")


def clustered_laplacian(n, blocks, noise=0.02):
    """A graph of loosely joined groups, as real images give."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(n) * blocks // n
    affinity = (group[:, None] == group[None, :]).float() * torch.linspace(0.5, 1, n)[:, None].sqrt()
    affinity = affinity * affinity.T + 1 + noise * torch.rand(n, n, generator=generator)
    return normalized_laplacian((affinity + affinity.T)[None] / 2)


def test_subspace__finds_the_cue_of_the_full_decomposition():
    laplacian, degree = clustered_laplacian(400, 5)
    _, exact = smallest_eigenpairs(laplacian.double(), degree.double(), 4, "eigh")
    _, ours = smallest_eigenpairs(laplacian, degree, 4, "subspace")
    assert ((exact * ours.double()).sum(dim=1).abs() > 0.99999).all()


def test_subspace__image_that_does_not_converge_is_decomposed_in_full(monkeypatch):
    """Without iterations nothing converges, so the answer must be the full decomposition's to the bit."""
    monkeypatch.setattr(eigensolver, "RESIDUAL_TOLERANCE", 0.0)
    laplacian, degree = clustered_laplacian(200, 3)
    for ours, exact in zip(
        smallest_eigenpairs(laplacian, degree, 4, "subspace"),
        smallest_eigenpairs(laplacian, degree, 4, "eigh"),
        strict=True,
    ):
        assert torch.equal(ours, exact)


def test_subspace__neither_reads_nor_moves_the_random_state():
    laplacian, degree = clustered_laplacian(200, 3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    _, first = smallest_eigenpairs(laplacian, degree, 4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(smallest_eigenpairs(laplacian, degree, 4)[1], first)


def test_subspace__isolated_patches_still_give_eigenvectors():
    """√degree is no null vector where a patch has no neighbours; the full decomposition must take over."""
    affinity = torch.ones(1, 150, 150)
    affinity[:, 0, :] = affinity[:, :, 0] = 0
    laplacian, degree = normalized_laplacian(affinity)
    values, vectors = smallest_eigenpairs(laplacian, degree, 3)
    assert torch.allclose(laplacian @ vectors, vectors * values[:, None, :], atol=1e-5)
