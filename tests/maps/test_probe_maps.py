"""Feature maps of padded images and of overlapping windows."""

import pytest
import torch
from torch.nn import functional as F

from eagle.maps.probe_maps import MapSettings, ProbeMaps, padded_to_patches, windowed

PATCH = 4


def mean_of_patches(img):
    """Features that depend on their own patch only, so that windows cannot change them."""
    return F.avg_pool2d(img, PATCH)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 8), (1, 1), (9, 17)])
def test_padded_to_patches__repeats_the_border(height, width):
    img = torch.randn(2, 3, height, width)
    padded = padded_to_patches(img, PATCH)
    assert padded.shape[2] % PATCH == padded.shape[3] % PATCH == 0
    assert padded.shape[2] < height + PATCH
    assert torch.equal(padded[:, :, :height, :width], img)
    assert torch.equal(padded[:, :, height:, :width], img[:, :, -1:].expand_as(padded[:, :, height:, :width]))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 40), (44, 16), (60, 52), (8, 40)])
@pytest.mark.parametrize("window", [4, 12, 16])
def test_windowed__local_features_are_those_of_the_whole_image(height, width, window):
    img = torch.randn(2, 3, height, width)
    result = windowed(mean_of_patches, img, window, PATCH)
    assert torch.allclose(result, mean_of_patches(img), atol=1e-5)


def test_windowed__never_sees_more_than_a_window():
    seen = []

    def features(img):
        seen.append(img.shape[2:])
        return mean_of_patches(img)

    windowed(features, torch.randn(1, 3, 64, 100), 16, PATCH)
    assert set(seen) == {(16, 16)}
    assert len(seen) == 7 * 12  # half-window steps and one flush with the end


def test_windowed__blends_without_a_seam():
    """Windows that see their own mean only: the blend changes gradually from one to the next."""

    def window_mean(img):
        return img.mean(dim=(1, 2, 3))[:, None, None, None].expand(-1, 1, img.shape[2] // PATCH, img.shape[3] // PATCH)

    ramp = torch.arange(128.0).expand(1, 3, 32, 128)
    row = windowed(window_mean, ramp, 32, PATCH)[0, 0, 0]
    steps = row.diff()
    assert (steps >= -1e-4).all()
    assert steps.max() < 8, "a jump between windows would be 16"


def test_patch_features__cover_the_image_and_mirror_with_it():
    img = torch.randn(1, 3, 12, 20)
    maps = ProbeMaps(torch.nn.AvgPool2d(PATCH), PATCH, {}, MapSettings())
    assert torch.allclose(maps.patch_features(img), mean_of_patches(img), atol=1e-6)
    windows = ProbeMaps(torch.nn.AvgPool2d(PATCH), PATCH, {}, MapSettings(window=8))
    assert windows.patch_features(torch.randn(1, 3, 13, 18)).shape == (1, 3, 4, 5)
