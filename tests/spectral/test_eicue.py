import pytest
import torch

from eagle.models.probes import ClusterLookup
from eagle.spectral.eicue import eicue, fix_signs, laplacian_eigenvectors


def test_fix_signs__does_not_depend_on_the_solvers_signs():
    vectors = torch.randn(2, 49, 4, generator=torch.Generator().manual_seed(0))
    flips = torch.tensor([1.0, -1.0, -1.0, 1.0])
    assert torch.equal(fix_signs(vectors), fix_signs(vectors * flips))
    assert ((fix_signs(vectors) > 0).float().mean(dim=1) <= 0.5).all()


def test_eicue__finds_two_objects():
    """Two halves of orthogonal codes on one colour: the cue must tell them apart, patch for patch."""
    code = torch.zeros(1, 8, 6, 6)
    code[:, 0, :, :3] = 1
    code[:, 1, :, 3:] = 1
    vectors = laplacian_eigenvectors(code, torch.zeros(1, 3, 48, 48), k=2)
    second = vectors[0, :, 1].reshape(6, 6)
    assert (second[:, :3].sign() == -second[:, 3:].sign()).all()
    codebook = ClusterLookup(1, 2)
    codebook.load_state_dict({"clusters": torch.tensor([[1.0], [-1.0]])})
    _, cue = eicue(vectors, (6, 6), codebook)
    assert cue[0, :, :3].unique().numel() == 1
    assert cue[0, :, 3:].unique().numel() == 1
    assert cue[0, 0, 0] != cue[0, 0, 5]


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (3, 5)])
def test_eicue__any_grid(grid):
    vectors = laplacian_eigenvectors(torch.randn(2, 8, *grid), torch.randn(2, 3, 32, 32), k=4)
    assert vectors.shape == (2, grid[0] * grid[1], 4)
    loss, cue = eicue(vectors, grid, ClusterLookup(3, 5))
    assert cue.shape == (2, *grid)
    assert torch.isfinite(loss)


def test_eicue__no_gradient_reaches_the_code():
    code = torch.randn(1, 8, 4, 4, requires_grad=True)
    codebook = ClusterLookup(3, 5)
    loss, _ = eicue(laplacian_eigenvectors(code, torch.randn(1, 3, 32, 32), k=4), (4, 4), codebook)
    loss.backward()
    assert code.grad is None
    assert codebook.clusters.grad.abs().sum() > 0
