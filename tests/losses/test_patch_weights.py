import pytest
import torch
from torch.nn import functional as F

from eagle.losses.patch_weights import patch_weights


@pytest.mark.parametrize("shape", [(2, 30, 5, 4), (2, 3, 6, 8), (1, 6, 1, 1), (1, 6, 1, 3)])
def test_patch_weights__are_row_means_of_the_normalised_similarity(shape):
    """Tiles (N ≤ 3C) and Gram matrix against the definition in float64."""
    torch.manual_seed(0)
    keys = torch.randn(shape) + 0.3
    tokens = keys.double().flatten(2)
    expected = F.normalize(tokens.transpose(1, 2) @ tokens, dim=1).mean(dim=2)
    assert torch.allclose(patch_weights(keys).double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("channels", [2, 40])
def test_patch_weights__zero_key_has_zero_weight(channels):
    keys = torch.randn(1, channels, 3, 3)
    keys[:, :, 1, 1] = 0
    assert patch_weights(keys)[0, 4] == 0
    assert torch.isfinite(patch_weights(keys)).all()
