"""Bars: how often each class occurs, and how often it is predicted."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch

from eagle.evaluation.frequencies import Frequencies
from eagle.figures.rendering import shown_name

ROW_INCHES = 0.29
MAX_INCHES = 30.0
LABEL_COLOR = "0.75"
BAR_HEIGHT = 0.42


def frequencies_figure(frequencies: Frequencies, title: str) -> Figure:
    """Draw one row per class, the most frequent first: share of the labelled pixels above, share of its cluster below.

    Clusters without a class come last, with one bar each. Without labels all rows are clusters.

    Args:
        frequencies: of classes and clusters.
        title: above the bars.
    """
    n, n_classes = len(frequencies.names), len(frequencies.labelled)
    order = [*np.argsort(-frequencies.labelled, kind="stable").tolist(), *range(n_classes, n)]
    row_inches = min(ROW_INCHES, MAX_INCHES / n)
    size = min(8.0, 28 * row_inches)
    figure = Figure(figsize=(6.4, 1.3 + row_inches * n), layout="constrained")
    ax = figure.subplots()
    place = np.argsort(order)
    colors = frequencies.colors / 255
    has_label = np.arange(n) < n_classes
    _draw_bars(ax, place[:n_classes] - BAR_HEIGHT / 2, frequencies.labelled_percent, LABEL_COLOR, size)
    _draw_bars(ax, place + np.where(has_label, BAR_HEIGHT / 2, 0), frequencies.predicted_percent, colors, size)
    ax.set_yticks(range(n), [shown_name(frequencies.names[row]) for row in order], fontsize=size)
    ax.set_ylim(n - 0.4, -0.6)
    ax.set_xlim(0, 1.1 * max(frequencies.predicted_percent.max(), frequencies.labelled_percent.max(initial=0)))
    _style_axes(ax)
    ax.set_xlabel("% of the labelled pixels" if n_classes else "% of the pixels", fontsize=8)
    ax.set_title(title, fontsize=9)
    if n_classes:
        some = tuple(Patch(color=tuple(colors[row])) for row in order[: min(3, n_classes)])
        ax.legend(
            [Patch(color=LABEL_COLOR), some],
            ["labels", "cluster matched to the class"],
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
            loc="lower right",
            fontsize=8,
            frameon=False,
        )
    return figure


def _draw_bars(ax: Axes, y: np.ndarray, percent: np.ndarray, color: str | np.ndarray, size: float) -> None:
    ax.barh(y, percent, BAR_HEIGHT, color=color)
    for height, share in zip(y, percent, strict=True):
        ax.annotate(
            f"{share:.1f}",
            (share, height),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=0.75 * size,
            color="0.3",
        )


def _style_axes(ax: Axes) -> None:
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8, length=0)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.spines["left"].set_color("0.7")
