"""Curves of one or several runs: a panel for each quantity, a colour for each run."""

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
# What a panel shows: the logged name and what stands above it, in reading order.
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
# Okabe and Ito's colours without yellow, which is faint on white; each round of them has a dash pattern of its own.
RUN_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
N_COLUMNS = 4
# Scores that differ by less than these percents are not to look far apart.
LEAST_PERCENT_SPAN = 5


def curves_figure(runs: Sequence[RunMetrics], smoothing: int | None = None) -> Figure:
    """Small multiples over batches done.

    Training losses are drawn twice: thin as logged, thick as their running median. Validations are points. A dashed
    vertical line is the first batch logged with λ above 0.

    Args:
        runs: at least one; they may have different columns.
        smoothing: batches that the median spans, centred; 0 for none; None for a twentieth of the longest run, or
            three logged values where that is more.
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
        _draw_switches(ax, runs)
        _calm(ax, title)
        if "(%)" in title:
            _widen(ax)
    for ax in axes[len(titles) :]:
        ax.set_visible(False)
    for ax in axes[len(titles) - n_columns : len(titles)]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("batches", fontsize=8)
    axes[0].set_xlim(0, 1.02 * max(run.n_batches() for run in runs))
    handles = [
        Line2D([], [], color=_color(number), linestyle=_dashes(number), linewidth=2, label=shown_name(run.name))
        for number, run in enumerate(runs)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(runs), 4), fontsize=9, frameon=False)
    figure.supxlabel(_note(runs, window), fontsize=8, color="0.35")
    return figure


def default_smoothing(runs: Sequence[RunMetrics]) -> int:
    """Batches that a median should span: a twentieth of the longest run, and no less than three logged values."""
    longest = max(run.n_batches() for run in runs)
    between_rows = max(run.n_batches() / max(len(curve.values) for curve in run.curves.values()) for run in runs)
    return math.ceil(max(longest / 20, 2 * between_rows))


def running_median(curve: Curve, window: int) -> np.ndarray:
    """At each value the median of those at most half a window of batches away."""
    first = np.searchsorted(curve.batches, curve.batches - window / 2, side="left")
    last = np.searchsorted(curve.batches, curve.batches + window / 2, side="right")
    return np.array([np.median(curve.values[i:j]) for i, j in zip(first, last, strict=True)])


def switch_batch(run: RunMetrics) -> int | None:
    """The first batch logged with λ above 0; None where there is none."""
    curve = run.curves.get(LAMBDA)
    if curve is None or not (curve.values > 0).any():
        return None
    return int(curve.batches[np.argmax(curve.values > 0)])


def _draw_curve(ax: Axes, curve: Curve, column: str, window: int, number: int, runs: Sequence[RunMetrics]) -> None:
    style: dict[str, Any] = {"color": _color(number), "label": runs[number].name, "zorder": 3}
    dashes = _dashes(number)
    if column.startswith(VALIDATION_PREFIXES):
        size = min(3.5, max(1.5, 100 / len(curve.values)))
        ax.plot(curve.batches, curve.values, dashes, linewidth=1.1, marker="o", markersize=size, **style)
    elif column == LAMBDA or not window:
        ax.plot(curve.batches, curve.values, dashes, linewidth=1.5, **style)
    else:
        faint = 0.45 / math.sqrt(len(runs))
        ax.plot(curve.batches, curve.values, linewidth=0.7, alpha=faint, **(style | {"zorder": 2}))
        ax.plot(curve.batches, running_median(curve, window), dashes, linewidth=1.8, **style)


def _draw_switches(ax: Axes, runs: Sequence[RunMetrics]) -> None:
    """Grey where all runs that have a switch have the same, else in the runs' colours."""
    switches = {number: batch for number, run in enumerate(runs) if (batch := switch_batch(run)) is not None}
    same = len(set(switches.values())) == 1
    for number, batch in switches.items():
        color = "0.5" if same else _color(number)
        ax.axvline(batch, color=color, linestyle=(0, (4, 3)), linewidth=0.9, zorder=1)


def _widen(ax: Axes) -> None:
    low, high = ax.get_ylim()
    missing = LEAST_PERCENT_SPAN - (high - low)
    if missing > 0:
        low = max(0.0, low - missing / 2)
        ax.set_ylim(low, max(high, low + LEAST_PERCENT_SPAN))


def _calm(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=9, loc="left")
    ax.grid(color="0.92", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, length=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.7")


def _note(runs: Sequence[RunMetrics], window: int) -> str:
    words = ["points: validations"]
    if window:
        words.append(f"thin: as logged, thick: running median over {window} batches")
    if any(switch_batch(run) is not None for run in runs):
        words.append("dashed: λ sets in")
    return " · ".join(words)


def _color(number: int) -> str:
    return RUN_COLORS[number % len(RUN_COLORS)]


def _dashes(number: int) -> str:
    return DASHES[number // len(RUN_COLORS) % len(DASHES)]
