"""Confusion matrices, and what all figures share: rendering, short names, axes."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS_NAME, write_image

CELL_INCHES = 0.36
# Cells shrink when the matrix would be larger than this.
MAX_INCHES = 13.0
# Leaves room for the title and the colour bar.
MIN_INCHES = (4.6, 2.8)
# Larger matrices have no numbers in their cells.
MAX_ANNOTATED = 32


def confusion_figure(
    confusion: np.ndarray, classes: Classes, title: str, unmatched: np.ndarray | None = None
) -> Figure:
    """Draw a matched confusion matrix in rounded percent of each label's pixels; cells below 0.5 % have no number.

    A label that no pixel has is marked as absent.

    Args:
        confusion: n×n pixel counts, row = predicted class, column = label (as in ``Scores``); drawn transposed.
        classes: axis labels.
        title: above the matrix.
        unmatched: n pixel counts per label in clusters without a class, drawn as the last column; None to leave it out.
    """
    by_label = confusion.T.astype(float)
    predicted = [shown_name(name) for name in classes.names]
    if unmatched is not None:
        by_label = np.column_stack([by_label, unmatched])
        predicted.append(NO_CLASS_NAME)
    absent = by_label.sum(axis=1) == 0
    labels = [shown_name(n) + " (absent)" * bool(gone) for n, gone in zip(classes.names, absent, strict=True)]
    share = 100 * by_label / np.maximum(by_label.sum(axis=1, keepdims=True), 1)
    n = len(predicted)
    cell = min(CELL_INCHES, MAX_INCHES / n)
    size = min(8.0, 60 * cell)
    label_inches, predicted_inches = (max(map(len, names)) * 0.6 * size / 72 for names in (labels, predicted))
    width, height = 1.4 + label_inches + cell * n, 1.1 + predicted_inches + cell * len(classes)
    figure = Figure((max(width, MIN_INCHES[0]), max(height, MIN_INCHES[1])), layout="constrained")
    ax = figure.subplots()
    shown = ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
    ax.set_xticks(range(n), predicted, rotation=90, fontsize=size)
    ax.set_yticks(range(len(classes)), labels, fontsize=size)
    for tick, gone in zip(ax.get_yticklabels(), absent, strict=True):
        tick.set_color("0.55" if gone else "black")
    ax.tick_params(length=0)
    ax.spines[["top", "right", "bottom", "left"]].set_color("0.7")
    ax.set_xlabel("predicted", fontsize=9)
    ax.set_ylabel("label", fontsize=9)
    figure.suptitle(title, fontsize=9)  # an axes title would leave the page where cells are kept square
    if n <= MAX_ANNOTATED:
        for (i, j), value in np.ndenumerate(share):
            if value >= 0.5:
                color = "white" if value > 55 else "black"
                ax.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    bar = figure.colorbar(shown, shrink=0.6, aspect=30, pad=0.02)
    bar.set_label("% of the label's pixels", fontsize=8)
    bar.ax.tick_params(labelsize=8, length=0)
    bar.ax.spines["outline"].set_visible(False)
    return figure


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


def write_figure(path: Path, figure: Figure, dpi: float = DPI) -> None:
    """Write a figure as PNG under a temporary name, then rename it."""
    write_image(path, rendered(figure, dpi))


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
