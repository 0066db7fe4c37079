"""Bars: how often each class occurs and is predicted."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch

from eagle.figures.confusion import shown_name, style_axes

ROW_INCHES = 0.29
MAX_INCHES = 30.0
LABEL_COLOR = "0.75"
BAR_HEIGHT = 0.42


def frequencies_figure(
    names: Sequence[str], colors: np.ndarray, predicted: np.ndarray, labelled: np.ndarray, title: str
) -> Figure:
    """Draw one row per class, the most frequent first: share of the labelled pixels above, share of its cluster below.

    Clusters without a class come last, with one bar each. Without labels all rows are clusters.

    Args:
        names: n names: classes, then clusters without a class.
        colors: n×3 uint8, as on label maps.
        predicted: n pixel counts of predictions.
        labelled: pixel counts of the classes' labels; empty without labels.
        title: above the bars.
    """
    n, n_classes = len(names), len(labelled)
    order = [*np.argsort(-labelled, kind="stable").tolist(), *range(n_classes, n)]
    place = np.argsort(order)
    row_inches = min(ROW_INCHES, MAX_INCHES / n)
    size = min(8.0, 28 * row_inches)
    figure = Figure(figsize=(6.4, 1.3 + row_inches * n), layout="constrained")
    ax = figure.subplots()
    style_axes(ax)
    ax.grid(visible=False, axis="y")
    ax.spines["bottom"].set_visible(False)
    below = np.where(np.arange(n) < n_classes, BAR_HEIGHT / 2, 0)
    longest = max(
        _draw_bars(ax, place[:n_classes] - BAR_HEIGHT / 2, labelled, LABEL_COLOR, size),
        _draw_bars(ax, place + below, predicted, colors / 255, size),
    )
    ax.set_yticks(range(n), [shown_name(names[row]) for row in order], fontsize=size)
    ax.set_ylim(n - 0.4, -0.6)
    ax.set_xlim(0, 1.1 * longest)
    ax.set_xlabel("% of the labelled pixels" if n_classes else "% of the pixels", fontsize=8)
    ax.set_title(title, fontsize=9)
    if n_classes:
        some = tuple(Patch(color=tuple(colors[row] / 255)) for row in order[: min(3, n_classes)])
        ax.legend(
            [Patch(color=LABEL_COLOR), some],
            ["labels", "cluster matched to the class"],
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
            loc="lower right",
            fontsize=8,
            frameon=False,
        )
    return figure


def _draw_bars(ax: Axes, y: np.ndarray, counts: np.ndarray, color: str | np.ndarray, size: float) -> float:
    """Draw counts in percent of their sum; return the longest bar."""
    percent = 100 * counts / max(counts.sum(), 1)
    bars = ax.barh(y, percent, BAR_HEIGHT, color=color)
    ax.bar_label(bars, fmt="{:.1f}", padding=3, fontsize=0.75 * size, color="0.3")
    return float(percent.max(initial=0))
