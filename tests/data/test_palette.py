"""Made-up colours are told apart, in colour-blind vision as a second, independent simulation has it."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from eagle.data.palette import VOID_COLOR, distinct_palette

# Viénot, Brettel and Mollon 1999: linear RGB → LMS, and a missing cone's response from the other two.
TO_LMS = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
MISSING = {
    "none": np.eye(3),
    "red": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
    "green": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
}


def as_seen(colors, missing):
    """n×3 RGB (0 to 255) → CIELAB of what an eye without that cone sees."""
    linear = np.where(colors / 255 <= 0.04045, colors / 255 / 12.92, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    linear = linear @ (np.linalg.inv(TO_LMS) @ MISSING[missing] @ TO_LMS).T
    linear = np.clip(linear, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


def least_difference(colors, missing):
    """CIEDE2000 of the two colours that look most alike; 1 is just noticeable side by side."""
    lab = as_seen(np.asarray(colors, dtype=float), missing)
    return (deltaE_ciede2000(lab[:, None], lab[None]) + 1000 * np.eye(len(lab))).min()


@pytest.mark.parametrize(("n", "least"), [(6, 14), (10, 10), (16, 8)])
@pytest.mark.parametrize("missing", ["none", "red", "green"])
def test_palette__colours_and_void_are_told_apart(n, least, missing):
    assert least_difference([*distinct_palette(n), VOID_COLOR], missing) > least


def test_palette__a_longer_one_begins_with_the_shorter():
    longest = distinct_palette(40)
    assert longest.dtype == np.uint8
    assert len(np.unique(longest, axis=0)) == 40
    for n in (0, 1, 2, 11):
        assert np.array_equal(distinct_palette(n), longest[:n])
