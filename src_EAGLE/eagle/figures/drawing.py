"""What all figures share: rendering, short names, axes."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eagle.data.labels import write_image

DPI = 130
LONGEST_NAME = 28


def rendered(figure: Figure, dpi: float = DPI) -> np.ndarray:
    """Draw a figure, H×W×3 uint8."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # matplotlib's font lacks some scripts; CSV and JSON files keep such names.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG under a temporary name, then rename it."""
    write_image(path, rendered(figure))


def shown_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Shorten a class or file name for a figure and escape what matplotlib would read as a formula."""
    short = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return short.encode(errors="backslashreplace").decode().replace("$", r"\$")


def style_axes(ax: Axes, title: str = "") -> None:
    """A title on the left, a faint grid, and no frame but the axes."""
    ax.set_title(title, fontsize=9, loc="left")
    ax.grid(color="0.92", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, length=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.7")
