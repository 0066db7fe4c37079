import pytest
import torch

from eagle.models.probes import ClusterLookup
from eagle.spectral.affinity import color_affinity
from eagle.spectral.eicue import eicue, full_float32, laplacian_eigenvectors, released_signs
from eagle.spectral.laplacian import normalized_laplacian


def test_released_signs__are_the_recorded_ones(golden):
    """The golden blocks are recorded after the released rule; ``flipped`` marks the images it negated."""
    for name in ("c_eigen_14x14_b2", "c_eigen_28x28_b1"):
        data = golden.tensors(name)
        before = torch.where(data["flipped"][:, None, None], -1, 1) * data["eigenvectors"]
        share = (before > 0).float().mean(dim=(1, 2))
        torch.testing.assert_close(share, data["frac_positive_before_flip"], atol=1e-6, rtol=0)
        assert torch.equal(released_signs(before), data["eigenvectors"])


def test_released_signs__negate_a_whole_block_and_leave_one_that_is_all_positive():
    block = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    expected = torch.stack([-block, -block, block.abs()])
    assert torch.equal(released_signs(torch.stack([block, -block, block.abs()])), expected)


def test_laplacian_eigenvectors__released_signs_are_mostly_the_recorded_ones(golden):
    """From the recorded inputs alone, so the signs are the solver's; the rest may differ with the processor."""
    agreeing = []
    for name, side in (("c_eigen_14x14_b2", 14), ("c_eigen_28x28_b1", 28)):
        data = golden.tensors(name)
        code = data["code"].transpose(1, 2).unflatten(2, (side, side))
        # The key eigensolver must not matter: the released signs are those of the released solver.
        vectors = laplacian_eigenvectors(code, data["img"], 4, method="subspace", signs="released")
        cosine = (vectors * data["eigenvectors"]).sum(dim=1)[:, 1:]
        torch.testing.assert_close(cosine.abs(), torch.ones_like(cosine), atol=1e-3, rtol=0)
        agreeing += (cosine > 0).flatten().tolist()
    assert len(agreeing) == 9
    assert sum(agreeing) >= 7


def test_laplacian_eigenvectors__colour_alone_ignores_the_codes():
    generator = torch.Generator().manual_seed(0)
    codes, img = torch.randn(2, 1, 8, 5, 5, generator=generator), torch.rand(1, 3, 40, 40, generator=generator)
    first, second = (laplacian_eigenvectors(code, img, 3, "paper", affinity="colour") for code in codes)
    assert torch.equal(first, second)
    laplacian, _ = normalized_laplacian(color_affinity(img, (5, 5), "paper"))
    expected = torch.linalg.eigh(laplacian[0].double()).eigenvectors[:, :3]
    cosine = (first[0].double() * expected).sum(dim=0)
    torch.testing.assert_close(cosine.abs(), torch.ones_like(cosine), atol=1e-4, rtol=0)
    both = laplacian_eigenvectors(codes[0], img, 3, "paper")
    assert not torch.allclose(both, first, atol=0.01)


def test_full_float32__ends_with_its_block_even_after_an_error():
    code, seen = torch.randn(4, 4), []

    def fail_inside():
        with full_float32(code.device):
            seen.append(((code @ code).dtype, torch.get_float32_matmul_precision()))
            raise ZeroDivisionError

    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with pytest.raises(ZeroDivisionError):
                fail_inside()
            assert (code @ code).dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == "medium"
        assert seen == [(torch.float32, "highest")]
    finally:
        torch.set_float32_matmul_precision("highest")


def test_eicue__finds_two_objects():
    """Two halves with orthogonal codes and one colour: the cue separates them exactly."""
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


def test_eicue__no_gradient_reaches_the_code():
    code = torch.randn(1, 8, 4, 4, requires_grad=True)
    codebook = ClusterLookup(3, 5)
    loss, _ = eicue(laplacian_eigenvectors(code, torch.randn(1, 3, 32, 32), k=4), (4, 4), codebook)
    loss.backward()
    assert code.grad is None
    assert codebook.clusters.grad.abs().sum() > 0
