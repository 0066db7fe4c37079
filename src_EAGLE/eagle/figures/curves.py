"""Curves of one or several runs: one panel per quantity, one colour per run."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eagle.figures.rendering import shown_name
from eagle.figures.run_metrics import Curve, RunMetrics

LAMBDA = "cd/update_params"
# Logged name → panel title, in reading order.
PANELS = {
    "test/cluster/mIoU": "cluster probe: mIoU (%)",
    "test/cluster/Accuracy": "cluster probe: accuracy (%)",
    "test/linear/mIoU": "linear probe: mIoU (%)",
    "test/linear/Accuracy": "linear probe: accuracy (%)",
    "val/loss": "validation loss, label-free",
    "loss/total": "total loss",
    "loss/pos_inter": "correspondence, positive pairs",
    "loss/neg_inter": "correspondence, negative pairs",
    "loss/local_pos_loss": "object-centric, x → x̃",
    "loss/local_pos_aug_loss": "object-centric, x̃ → x",
    "loss/cluster_eigen_loss": "EiCue codebook",
    LAMBDA: "λ, share of the object-centric loss",
    "loss/cluster": "cluster probe: loss",
    "loss/linear": "linear probe: loss",
    "cd/pos_inter": "code similarity, positive pairs",
    "cd/neg_inter": "code similarity, negative pairs",
}
VALIDATION_PREFIXES = ("test/", "val/")
# Okabe and Ito's colours without yellow, which is faint on white. Further runs repeat them with other dashes.
RUN_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
N_COLUMNS = 4
# Axes of scores span at least this much, so that small differences look small.
MIN_PERCENT_SPAN = 5


def curves_figure(runs: Sequence[RunMetrics], smoothing: int | None = None) -> Figure:
    """Draw one panel per logged quantity over optimiser steps.

    Training losses are drawn thin as logged, and thick as their running median. Points are validations. A dashed
    vertical line marks the first step logged with λ > 0.

    Args:
        runs: at least one; they may have logged different quantities.
        smoothing: steps spanned by the centred median; 0 for no median; None for ``default_smoothing``.
    """
    window = default_smoothing(runs) if smoothing is None else smoothing
    logged = {column for run in runs for column in run.curves}
    others = sorted(column for column in logged - PANELS.keys() if column.startswith("loss/"))
    titles = {column: title for column, title in PANELS.items() if column in logged} | {name: name for name in others}
    n_columns = min(N_COLUMNS, len(titles))
    n_rows = math.ceil(len(titles) / n_columns)
    figure = Figure(figsize=(3.1 * n_columns, 2.1 * n_rows + 0.8), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).flatten().tolist()
    for ax, (column, title) in zip(axes, titles.items(), strict=False):
        for number, run in enumerate(runs):
            if column in run.curves:
                _draw_curve(ax, run.curves[column], column, window, number, runs)
        _mark_object_steps(ax, runs)
        _style_axes(ax, title)
        if "(%)" in title:
            _widen_scores(ax)
    for ax in axes[len(titles) :]:
        ax.set_visible(False)
    for ax in axes[len(titles) - n_columns : len(titles)]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("steps", fontsize=8)
    axes[0].set_xlim(0, 1.02 * max(run.n_steps() for run in runs))
    handles = [
        Line2D([], [], color=_color(number), linestyle=_dashes(number), linewidth=2, label=shown_name(run.name))
        for number, run in enumerate(runs)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(runs), 4), fontsize=9, frameon=False)
    figure.supxlabel(_note(runs, window), fontsize=8, color="0.35")
    return figure


def default_smoothing(runs: Sequence[RunMetrics]) -> int:
    """Steps that the running median spans: a twentieth of the longest run, at least three logged values."""
    longest = max(run.n_steps() for run in runs)
    between_rows = max(run.n_steps() / max(len(curve.values) for curve in run.curves.values()) for run in runs)
    return math.ceil(max(longest / 20, 2 * between_rows))


def running_median(curve: Curve, window: int) -> np.ndarray:
    """The median of all values at most half a window of steps away, for each value."""
    first = np.searchsorted(curve.steps, curve.steps - window / 2, side="left")
    last = np.searchsorted(curve.steps, curve.steps + window / 2, side="right")
    return np.array([np.median(curve.values[i:j]) for i, j in zip(first, last, strict=True)])


def first_object_step(run: RunMetrics) -> int | None:
    """The first step logged with λ > 0; None if λ stays 0."""
    curve = run.curves.get(LAMBDA)
    if curve is None or not (curve.values > 0).any():
        return None
    return int(curve.steps[np.argmax(curve.values > 0)])


def _draw_curve(ax: Axes, curve: Curve, column: str, window: int, number: int, runs: Sequence[RunMetrics]) -> None:
    style: dict[str, Any] = {"color": _color(number), "label": runs[number].name, "zorder": 3}
    dashes = _dashes(number)
    if column.startswith(VALIDATION_PREFIXES):
        size = min(3.5, max(1.5, 100 / len(curve.values)))
        ax.plot(curve.steps, curve.values, dashes, linewidth=1.1, marker="o", markersize=size, **style)
    elif column == LAMBDA or not window:
        ax.plot(curve.steps, curve.values, dashes, linewidth=1.5, **style)
    else:
        faint = 0.45 / math.sqrt(len(runs))
        ax.plot(curve.steps, curve.values, linewidth=0.7, alpha=faint, **(style | {"zorder": 2}))
        ax.plot(curve.steps, running_median(curve, window), dashes, linewidth=1.8, **style)


def _mark_object_steps(ax: Axes, runs: Sequence[RunMetrics]) -> None:
    """Mark where λ sets in: in grey if it is the same step in all runs, otherwise in the colours of the runs."""
    steps = {number: step for number, run in enumerate(runs) if (step := first_object_step(run)) is not None}
    same = len(set(steps.values())) == 1
    for number, step in steps.items():
        color = "0.5" if same else _color(number)
        ax.axvline(step, color=color, linestyle=(0, (4, 3)), linewidth=0.9, zorder=1)


def _widen_scores(ax: Axes) -> None:
    low, high = ax.get_ylim()
    missing = MIN_PERCENT_SPAN - (high - low)
    if missing > 0:
        low = max(0.0, low - missing / 2)
        ax.set_ylim(low, max(high, low + MIN_PERCENT_SPAN))


def _style_axes(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=9, loc="left")
    ax.grid(color="0.92", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, length=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.7")


def _note(runs: Sequence[RunMetrics], window: int) -> str:
    words = ["points: validations"]
    if window:
        words.append(f"thin: as logged, thick: running median over {window} steps")
    if any(first_object_step(run) is not None for run in runs):
        words.append("dashed: λ > 0 from here on")
    return " · ".join(words)


def _color(number: int) -> str:
    return RUN_COLORS[number % len(RUN_COLORS)]


def _dashes(number: int) -> str:
    return DASHES[number // len(RUN_COLORS) % len(DASHES)]
