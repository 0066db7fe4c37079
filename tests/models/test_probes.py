import pytest
import torch

from eagle.models.probes import ClusterLookup, upsampled


@pytest.fixture
def data(golden):
    return golden.tensors("d_cluster_lookup")


@pytest.mark.parametrize("alpha", [None, 1, 4])
def test_cluster_lookup__released_values_and_gradients(data, alpha):
    probe = ClusterLookup(16, 7)
    probe.load_state_dict({"clusters": data["clusters"]})
    x = data["x"].clone().requires_grad_()
    loss, probs = probe(x, alpha)
    loss.backward()
    assert torch.allclose(probs, data[f"alpha_{alpha}.probs"], atol=1e-6)
    assert float(loss.detach()) == pytest.approx(float(data[f"alpha_{alpha}.loss"]), rel=1e-5)
    assert torch.allclose(x.grad, data[f"alpha_{alpha}.grad_x"], atol=1e-7)
    assert torch.allclose(probe.clusters.grad, data[f"alpha_{alpha}.grad_clusters"], atol=1e-6)
    if alpha is not None:
        loss, log_probs = probe(data["x"], alpha, log_probs=True)
        assert torch.allclose(log_probs, data[f"alpha_{alpha}.log_probs"], atol=1e-5)
        assert float(loss.detach()) == pytest.approx(float(data[f"alpha_{alpha}.loss_with_log_probs"]), rel=1e-5)
    else:
        with pytest.raises(ValueError, match="log_probs needs an alpha"):
            probe(data["x"], None, log_probs=True)


@pytest.mark.parametrize(("grid", "covered", "shown"), [((1, 1), (14, 14), (9, 11)), ((5, 9), (70, 126), (66, 121))])
def test_resampled_similarity__is_the_similarity_of_the_resampled_codes(grid, covered, shown):
    probe, codes = ClusterLookup(70, 4), torch.randn(2, 70, *grid)
    codes[:, :, 1:2] = -codes[:, :, : min(1, grid[0] - 1)]  # opposite neighbours: samples between them are short

    def resample(part):
        return upsampled(part, covered)[:, :, : shown[0], : shown[1]]

    torch.testing.assert_close(
        probe.resampled_similarity(codes, resample), probe.similarity(resample(codes)), atol=1e-4, rtol=0
    )
