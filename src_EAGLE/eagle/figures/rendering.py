"""A figure as pixels: drawn once, whether it goes to a file, to TensorBoard or to Weights & Biases."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eagle.data.label_images import write_image

DPI = 130
LONGEST_NAME = 28


def rendered(figure: Figure) -> np.ndarray:
    """A figure at 130 pixels an inch, H×W×3 uint8."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # Names in scripts that matplotlib's font lacks; CSV and JSON keep them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG under a temporary name, then rename it."""
    write_image(path, rendered(figure))


def shown_name(name: str) -> str:
    """A class's or a file's name as matplotlib can show it: not as a formula, and not longer than fits."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return short.encode(errors="backslashreplace").decode().replace("$", r"\$")
