"""Palette colours differ under an independent simulation of colour-blind vision."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000

from color_vision import as_seen
from eagle.data.labels import VOID_COLOR, distinct_palette


def least_difference(colors, missing):
    """Smallest pairwise CIEDE2000 distance; 1 is just noticeable side by side."""
    lab = as_seen(np.asarray(colors, dtype=float), missing)
    return (deltaE_ciede2000(lab[:, None], lab[None]) + 1000 * np.eye(len(lab))).min()


@pytest.mark.parametrize(("n", "least"), [(6, 14), (10, 10), (16, 8)])
@pytest.mark.parametrize("missing", ["none", "red", "green"])
def test_palette__colours_and_void_differ_in_every_vision(n, least, missing):
    assert least_difference([*distinct_palette(n), VOID_COLOR], missing) > least


def test_palette__longer_starts_with_shorter():
    longest = distinct_palette(40)
    assert longest.dtype == np.uint8
    assert len(np.unique(longest, axis=0)) == 40
    for n in (0, 1, 2, 11):
        assert np.array_equal(distinct_palette(n), longest[:n])


@pytest.mark.parametrize("n", [1, 11, 27])
def test_palette__colours_differ(n):
    palette = distinct_palette(n).astype(int)
    distances = np.abs(palette[:, None] - palette[None]).sum(axis=2) + 1000 * np.eye(n, dtype=int)
    assert palette.shape == (n, 3)
    assert distances.min() > 30
