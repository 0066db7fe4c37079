import numpy as np
import pytest
import scipy.linalg
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from eagle.errors import ConfigError
from eagle.spectral import eigensolver
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.eigensolver import smallest_eigenpairs
from eagle.spectral.laplacian import normalized_laplacian


@pytest.fixture(params=["eigh", "subspace", "subspace as on a GPU"])
def method(request, monkeypatch):
    """The solver's name; "as on a GPU" runs the iteration that does not wait for the device."""
    if request.param == "subspace as on a GPU":
        monkeypatch.setattr(eigensolver, "WITHOUT_WAITING", ())
        return "subspace"
    return request.param


@pytest.fixture(params=["as on a CPU", "as on a GPU"])
def both_iterations(request, monkeypatch):
    """Runs a test with both forms of the block iteration."""
    if request.param == "as on a GPU":
        monkeypatch.setattr(eigensolver, "WITHOUT_WAITING", ())


@pytest.mark.parametrize(("name", "grid"), [("c_eigen_14x14_b2", (14, 14)), ("c_eigen_28x28_b1", (28, 28))])
def test_eigenpairs__released_values_and_vectors(golden, name, grid, method):
    data = golden.tensors(name)
    affinity = color_affinity(data["img"], grid) + feature_affinity(data["code"])
    laplacian, degree = normalized_laplacian(affinity)
    values, vectors = smallest_eigenpairs(laplacian, degree, 4, method)
    # The first eigenvalue is zero up to rounding, so errors are relative to the spectrum's scale.
    assert (values - data["eigenvalues"]).abs().max() / data["eigenvalues"].abs().max() < 1e-4
    cosines = (vectors * data["eigenvectors"]).sum(dim=1).abs()
    assert (cosines > 0.9999).all(), cosines


def test_eigenpairs__equal_scipys_generalised_solution(method):
    """With v = D^½ u, L v = λ v is (D - A) u = λ D u, which scipy solves."""
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


def test_eigenpairs__unknown_method():
    with pytest.raises(ConfigError, match="did you mean 'eigh'"):
        smallest_eigenpairs(torch.eye(2)[None], torch.ones(1, 2), 1, "eig")


def clustered_laplacian(n, blocks, noise=0.02):
    """A graph of loosely connected groups, as in real images."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(n) * blocks // n
    affinity = (group[:, None] == group[None, :]).float() * torch.linspace(0.5, 1, n)[:, None].sqrt()
    affinity = affinity * affinity.T + 1 + noise * torch.rand(n, n, generator=generator)
    return normalized_laplacian((affinity + affinity.T)[None] / 2)


@pytest.mark.usefixtures("both_iterations")
def test_subspace__only_images_that_do_not_converge_are_decomposed_in_full(monkeypatch):
    """Loosely connected groups converge; a graph without eigengaps does not."""
    hard = torch.rand(2, 200, 200, generator=torch.Generator().manual_seed(0))
    laplacian, degree = normalized_laplacian(hard + hard.transpose(1, 2))
    easy, easy_degree = clustered_laplacian(200, 5)
    decomposed = []
    full = eigensolver._by_eigh
    monkeypatch.setattr(eigensolver, "_by_eigh", lambda some, k: decomposed.append(some) or full(some, k))
    laplacian, degree = (
        torch.cat([laplacian[:1], easy, laplacian[1:]]),
        torch.cat([degree[:1], easy_degree, degree[1:]]),
    )
    _, vectors = smallest_eigenpairs(laplacian, degree, 4)
    assert len(decomposed) == 1
    assert torch.equal(decomposed[0], laplacian[[0, 2]])
    exact = torch.linalg.eigh(laplacian.double()).eigenvectors[:, :, :4]
    assert ((exact * vectors.double()).sum(dim=1).abs() > 0.999).all()


@pytest.mark.usefixtures("both_iterations")
@pytest.mark.parametrize(("name", "grid"), [("c_eigen_14x14_b2", (14, 14)), ("c_eigen_28x28_b1", (28, 28))])
def test_subspace__released_codes_need_no_full_decomposition(golden, monkeypatch, name, grid):
    monkeypatch.delattr(eigensolver, "_by_eigh")
    monkeypatch.setattr(eigensolver, "MAX_ITERATIONS", 2)
    data = golden.tensors(name)
    laplacian, degree = normalized_laplacian(color_affinity(data["img"], grid) + feature_affinity(data["code"]))
    values, _ = smallest_eigenpairs(laplacian, degree, 4)
    assert (values - data["eigenvalues"]).abs().max() / data["eigenvalues"].abs().max() < 1e-4


@pytest.mark.parametrize("rank", [1, 3])
def test_subspace__affinities_of_low_rank_have_the_eigenvalues_of_the_full_decomposition(method, rank):
    """The columns of the block then depend on each other: Cholesky's decomposition fails or is all rounding."""
    group = torch.arange(200) * rank // 200
    affinity = (group[:, None] == group[None, :]).float() + 0.1
    laplacian, degree = normalized_laplacian(affinity[None])
    values, vectors = smallest_eigenpairs(laplacian, degree, 4, method)
    assert torch.allclose(values, torch.linalg.eigvalsh(laplacian.double())[:, :4].float(), atol=1e-5)
    assert torch.allclose(laplacian @ vectors, vectors * values[:, None, :], atol=1e-4)
    assert torch.allclose(vectors.transpose(1, 2) @ vectors, torch.eye(4), atol=1e-4)


@pytest.mark.parametrize("amplification", [1.0, 3e4])
def test_orthonormal__spans_the_columns_even_if_one_direction_dominates(amplification):
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(2, 784, 16, generator=generator)
    block += amplification * torch.randn(2, 784, 1, generator=generator) @ torch.randn(2, 1, 16, generator=generator)
    basis = eigensolver._orthonormal(block)
    assert torch.allclose(basis.transpose(1, 2) @ basis, torch.eye(16).expand(2, -1, -1), atol=1e-5)
    assert torch.allclose(basis @ (basis.transpose(1, 2) @ block), block, rtol=1e-4, atol=1e-5 * amplification)


@pytest.mark.usefixtures("both_iterations")
def test_subspace__neither_reads_nor_changes_the_random_state():
    laplacian, degree = clustered_laplacian(200, 3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    _, first = smallest_eigenpairs(laplacian, degree, 4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(smallest_eigenpairs(laplacian, degree, 4)[1], first)


class Decompositions(TorchDispatchMode):
    """Records the devices of decompositions; ``all`` is True, as meta tensors have no data."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_linalg_eigh", "linalg_qr"):
            self.seen.add((name, args[0].device.type))
        if name == "_local_scalar_dense":
            return True
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("method", "used"), [("eigh", {"_linalg_eigh"}), ("subspace", {"_linalg_eigh", "linalg_qr"})])
def test_eigenpairs__device_without_decompositions_uses_the_cpu(monkeypatch, method, used):
    """``meta`` stands in for Apple's GPUs."""
    monkeypatch.setattr(eigensolver, "WITHOUT_DECOMPOSITIONS", ("meta",))
    with FakeTensorMode(), torch.no_grad(), Decompositions() as decompositions:
        laplacian, degree = normalized_laplacian(torch.rand(2, 196, 196, device="meta"))
        values, vectors = smallest_eigenpairs(laplacian, degree, 4, method)
    assert (values.device.type, vectors.device.type) == ("meta", "meta")
    assert (tuple(values.shape), tuple(vectors.shape)) == ((2, 4), (2, 196, 4))
    assert decompositions.seen == {(name, "cpu") for name in used}
