import numpy as np
import pytest
import scipy.linalg
import torch

from eagle.errors import ConfigError
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.eigensolver import smallest_eigenpairs
from eagle.spectral.laplacian import normalized_laplacian

METHODS = ["eigh"]


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
