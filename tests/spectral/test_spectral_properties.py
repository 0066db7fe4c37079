"""Properties of affinities, Laplacian, eigenpairs and cue for any image and codes, including degenerate ones."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle.models.probes import ClusterLookup
from eagle.spectral import eigensolver
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.eicue import eicue, fix_signs, laplacian_eigenvectors
from eagle.spectral.eigensolver import METHODS, smallest_eigenpairs
from eagle.spectral.laplacian import normalized_laplacian

GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 5))
KINDS = ("random", "constant", "zero", "one patch stands out", "huge", "tiny", "half duplicated", "orthogonal")
METHOD = st.sampled_from(METHODS)


def drawn_code(kind, n_images, n_patches, dim, seed):
    """Codes of the given kind, B×N×D."""
    code = torch.randn(n_images, n_patches, dim, generator=torch.Generator().manual_seed(seed))
    if kind == "constant":
        return code[:, :1].expand_as(code).clone()
    if kind == "zero":
        return torch.zeros_like(code)
    if kind == "one patch stands out":
        code = code * 0
        code[:, 0, 0] = 1
        return code
    if kind == "half duplicated":
        code[:, n_patches // 2 :] = code[:, : n_patches - n_patches // 2]
        return code
    if kind == "orthogonal":
        return torch.eye(n_patches, dim).expand(n_images, -1, -1).clone()
    return code * {"random": 1, "huge": 1e8, "tiny": 1e-12}[kind]


@st.composite
def graphs(draw):
    """Affinities of two images from codes, with or without colours; often degenerate."""
    grid, seed = draw(GRIDS), draw(st.integers(0, 99))
    code = drawn_code(draw(st.sampled_from(KINDS)), 2, grid[0] * grid[1], 6, seed)
    img = torch.randn(2, 3, 4 * grid[0], 4 * grid[1], generator=torch.Generator().manual_seed(seed))
    if draw(st.booleans()):
        img = img[:, :, :1, :1].expand_as(img)  # one colour
    mode = draw(st.sampled_from(["released", "paper"]))
    color = color_affinity(img, grid, mode)
    return feature_affinity(code) + (color if draw(st.booleans()) else 0)


@given(graphs())
def test_affinity__is_finite_symmetric_and_between_zero_and_two(affinity):
    assert torch.isfinite(affinity).all()
    assert torch.allclose(affinity, affinity.transpose(1, 2), atol=1e-6)
    assert affinity.min() >= 0
    assert affinity.max() <= 2 + 1e-6


@given(graphs())
def test_laplacian__is_positive_semidefinite_with_a_spectrum_of_at_most_two_and_a_known_null_vector(affinity):
    laplacian, degree = normalized_laplacian(affinity.double())
    assert torch.allclose(laplacian, laplacian.transpose(1, 2), atol=1e-9)
    spectrum = torch.linalg.eigvalsh(laplacian)
    assert spectrum.min() >= -1e-6
    assert spectrum.max() <= 2 + 1e-6
    joined = affinity.double().sum(dim=2) > 1e-12
    null = laplacian @ (degree.sqrt() * joined)[:, :, None]
    assert null.abs().max() < 1e-6


@given(graphs(), st.integers(1, 4), METHOD)
def test_eigenpairs__are_orthonormal_ascending_eigenpairs(affinity, k, method):
    laplacian, degree = normalized_laplacian(affinity)
    values, vectors = smallest_eigenpairs(laplacian, degree, k, method)
    k = min(k, affinity.shape[1])
    assert vectors.shape == (2, affinity.shape[1], k)
    assert (values.diff(dim=1) >= -1e-5).all()
    assert torch.allclose(vectors.transpose(1, 2) @ vectors, torch.eye(k).expand(2, -1, -1), atol=1e-4)
    assert torch.allclose(laplacian @ vectors, vectors * values[:, None, :], atol=1e-4)


@given(graphs(), st.integers(0, 99))
def test_laplacian__renumbering_the_patches_renumbers_it_and_keeps_the_eigenvalues(affinity, seed):
    order = torch.randperm(affinity.shape[1], generator=torch.Generator().manual_seed(seed))
    laplacian, degree = normalized_laplacian(affinity)
    renumbered, degree_renumbered = normalized_laplacian(affinity[:, order][:, :, order])
    assert torch.allclose(laplacian[:, order][:, :, order], renumbered, atol=1e-5)
    values, _ = smallest_eigenpairs(laplacian, degree, 4)
    values_renumbered, _ = smallest_eigenpairs(renumbered, degree_renumbered, 4)
    assert torch.allclose(values, values_renumbered, atol=1e-4)


@given(st.sampled_from(KINDS), st.integers(1, 20), st.integers(0, 99))
def test_feature_affinity__permutes_with_patches_and_ignores_scale_and_rotation(kind, n_patches, seed):
    code = drawn_code(kind, 2, n_patches, 6, seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n_patches, generator=generator)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    affinity = feature_affinity(code)
    assert torch.allclose(feature_affinity(code[:, order]), affinity[:, order][:, :, order], atol=1e-5)
    assert torch.allclose(feature_affinity(3 * code @ rotation), affinity, atol=1e-5)


@given(st.sampled_from(KINDS), st.integers(0, 99), METHOD, st.sampled_from([("cpu",), ()]))
@settings(max_examples=24)
def test_eigenpairs__large_degenerate_graphs_agree_between_the_solvers(kind, seed, method, without_waiting):
    """144 patches are enough for the block iteration, with early end as on the CPU or without as on a GPU.

    Eigenvalues are unique even if eigenvectors are not.
    """
    code = drawn_code(kind, 1, 144, 16, seed)
    img = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(seed))
    laplacian, degree = normalized_laplacian(feature_affinity(code) + color_affinity(img, (12, 12)))
    with mock.patch.object(eigensolver, "WITHOUT_WAITING", without_waiting):
        values, vectors = smallest_eigenpairs(laplacian, degree, 4, method)
    assert torch.allclose(values, torch.linalg.eigvalsh(laplacian.double())[:, :4].float(), atol=2e-4)
    assert (laplacian @ vectors - vectors * values[:, None, :]).abs().max() < 1e-3


@given(
    st.integers(1, 30),
    st.integers(1, 4),
    st.integers(0, 99),
    st.integers(0, 6),
    st.lists(st.sampled_from([1.0, -1.0]), min_size=4, max_size=4),
)
def test_eicue__does_not_depend_on_the_solvers_signs(n_patches, k, seed, decimals, flips):
    torch.manual_seed(seed)
    # Rounding produces zero entries and ties of signs and magnitudes.
    vectors = torch.randn(2, n_patches, k).round(decimals=decimals)
    flipped = vectors * torch.tensor(flips[:k])
    codebook = ClusterLookup(max(k - 1, 1), 5)
    ours, theirs = fix_signs(vectors), fix_signs(flipped)
    assert torch.equal(ours, theirs)
    assert ((ours > 0).sum(dim=1) * 2 <= n_patches).all()
    if k > 1:
        (loss, cue), (other_loss, other_cue) = (eicue(v, (n_patches, 1), codebook) for v in (ours, theirs))
        assert torch.equal(cue, other_cue)
        assert torch.equal(loss, other_loss)


@given(st.sampled_from(KINDS), GRIDS, st.integers(0, 99), st.booleans(), METHOD)
def test_eicue__is_finite_with_finite_gradients_for_any_image(kind, grid, seed, one_color, method):
    torch.manual_seed(seed)
    code = drawn_code(kind, 2, grid[0] * grid[1], 6, seed).transpose(1, 2).unflatten(2, grid)
    img = torch.zeros(2, 3, 16, 16) if one_color else torch.randn(2, 3, 16, 16)
    codebook = ClusterLookup(3, 5)
    loss, cue = eicue(laplacian_eigenvectors(code, img, 4, method=method), grid, codebook)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(codebook.clusters.grad).all()
    assert cue.min() >= 0
    assert cue.max() < 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [9, 200])
def test_eigenpairs__non_finite_image_gives_nan_without_affecting_others(method, n):
    affinity = torch.rand(3, n, n, generator=torch.Generator().manual_seed(0))
    affinity = affinity + affinity.transpose(1, 2)
    healthy = smallest_eigenpairs(*normalized_laplacian(affinity), 3, method)
    affinity[1, 0, 0] = torch.nan
    values, vectors = smallest_eigenpairs(*normalized_laplacian(affinity), 3, method)
    assert values[1].isnan().all()
    assert vectors[1].isnan().all()
    for row in (0, 2):
        assert torch.allclose(values[row], healthy[0][row], atol=1e-5)
        assert ((vectors[row] * healthy[1][row]).sum(dim=0).abs() > 0.999).all()
