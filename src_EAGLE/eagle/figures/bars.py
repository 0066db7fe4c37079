"""Bars: how often each class occurs and is predicted; mean scores of several runs."""

from collections.abc import Mapping, Sequence

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
# Okabe and Ito's colours without yellow, which is faint on white.
RUN_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


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


def bars_figure(scores: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """Draw one group of bars per data set: mean with standard deviation, and a point per seed.

    Args:
        scores: one value per seed by data set and setting; a setting that is missing from a data set leaves a gap.
        title: what the scores are.
    """
    settings = list(dict.fromkeys(name for by_setting in scores.values() for name in by_setting))
    figure = Figure(figsize=(2.2 + 0.33 * len(settings) * len(scores), 3.6), layout="constrained")
    ax = figure.subplots()
    width = 0.84 / len(settings)
    for number, setting in enumerate(settings):
        color = RUN_COLORS[number % len(RUN_COLORS)]
        for place, by_setting in enumerate(scores.values()):
            values = np.asarray(by_setting.get(setting, ()), dtype=float)
            if len(values):
                x = place + (number - (len(settings) - 1) / 2) * width
                deviation = values.std(ddof=1) if len(values) > 1 else 0.0
                ax.bar(x, values.mean(), 0.9 * width, color=color, alpha=0.75, yerr=deviation, capsize=2)
                ax.plot(np.full(len(values), x), values, ".", color="black", markersize=3)
    ax.set_xticks(range(len(scores)), [shown_name(name) for name in scores])
    ax.set_ylabel("mIoU (%)")
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    patches = [
        Patch(color=RUN_COLORS[number % len(RUN_COLORS)], alpha=0.75, label=shown_name(name))
        for number, name in enumerate(settings)
    ]
    columns = min(5, len(settings))
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return figure


def _draw_bars(ax: Axes, y: np.ndarray, counts: np.ndarray, color: str | np.ndarray, size: float) -> float:
    """Draw counts in percent of their sum; return the longest bar."""
    percent = 100 * counts / max(counts.sum(), 1)
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
    return float(percent.max(initial=0))
