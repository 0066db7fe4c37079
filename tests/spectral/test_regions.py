"""Region means: one unit vector for each region that is large enough, whatever its size and label."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eagle.evaluation.kmeans import fast_kmeans_of
from eagle.spectral.regions import region_means


def test_region_means__are_the_directions_of_the_mean_unit_codes():
    code = torch.tensor([[[[3.0, 0.0, 0.0]], [[0.0, 5.0, 7.0]]]])
    (means,) = region_means(code, torch.tensor([[[4, 4, 1]]]))
    torch.testing.assert_close(means, torch.tensor([[0.0, 1.0], [0.5**0.5, 0.5**0.5]]))


def test_region_means__equal_labels_of_two_images_are_two_regions():
    code = torch.randn(2, 6, 4, 4)
    together = region_means(code, torch.zeros(2, 4, 4, dtype=torch.long))
    alone = [region_means(code[i : i + 1], torch.zeros(1, 4, 4, dtype=torch.long))[0] for i in range(2)]
    for mean, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(mean, expected)


def test_region_means__label_numbers_change_the_order_only():
    code, cue = torch.randn(1, 6, 4, 5), torch.randint(3, (1, 4, 5))
    (means,), (renamed,) = region_means(code, cue), region_means(code, 2 - cue)
    torch.testing.assert_close(means, renamed.flip(0))


@pytest.mark.parametrize(("least_share", "n"), [(0.02, 2), (0.05, 2), (0.06, 1), (1.0, 0)])
def test_region_means__small_regions_are_left_out(least_share, n):
    cue = torch.zeros(1, 4, 5, dtype=torch.long)
    cue[0, 0, 0] = 1
    assert len(region_means(torch.randn(1, 6, 4, 5), cue, least_share)[0]) == n


def test_region_means__are_float32_at_every_precision():
    code, cue = torch.randn(1, 6, 4, 5), torch.randint(3, (1, 4, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (means,) = region_means(code, cue)
    assert torch.equal(means, region_means(code, cue)[0])


def test_region_means__one_patch_is_one_region():
    (means,) = region_means(torch.full((1, 4, 1, 1), 2.0), torch.full((1, 1, 1), 31))
    torch.testing.assert_close(means, torch.full((1, 4), 0.5))


def test_kmeans_of_regions__finds_small_things_beside_a_large_varied_background():
    """k-means of all patches spends its centres on the background."""
    generator = torch.Generator().manual_seed(0)
    kinds = F.normalize(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0.7, 0], [0, 0.7, 1, 0]]), dim=1)
    cue = torch.zeros(1, 8, 8, dtype=torch.long)
    cue[0, 2:4, 2:4] = 1
    patches, regions = [], []
    for image in range(40):
        code = kinds[0] + 0.6 * torch.randn(8, 8, 4, generator=generator)
        code[cue[0] == 1] = kinds[1 + image % 2] + 0.05 * torch.randn(4, 4, generator=generator)
        code = F.normalize(code, dim=2)
        patches.append(code.flatten(0, 1).numpy())
        regions.append(region_means(code.permute(2, 0, 1)[None], cue)[0].numpy())
    found = {name: fast_kmeans_of(np.concatenate(part), 3, seed=0) for name, part in (("p", patches), ("r", regions))}
    nearest = {name: (F.normalize(centres, dim=1) @ kinds.T).amax(dim=0) for name, centres in found.items()}
    assert nearest["r"].min() > 0.99
    assert nearest["p"].min() < 0.99
