"""Simulated colour blindness, independent of the simulation that chooses the palette."""

import numpy as np
from skimage.color import rgb2lab

# Viénot, Brettel and Mollon 1999: linear RGB → LMS; the response of a missing cone follows from the other two.
TO_LMS = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
MISSING = {
    "none": np.eye(3),
    "red": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
    "green": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
}


def as_seen(colors, missing):
    """n×3 RGB (0 to 255) → n×3 CIELAB as seen without the missing cone."""
    linear = np.where(colors / 255 <= 0.04045, colors / 255 / 12.92, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    linear = linear @ (np.linalg.inv(TO_LMS) @ MISSING[missing] @ TO_LMS).T
    linear = np.clip(linear, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))
