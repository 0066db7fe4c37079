"""Curves of one or several runs, read from their ``metrics.csv``: one panel per quantity, one colour per run."""

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.ndimage import median_filter

from eagle.errors import DataError
from eagle.figures.drawing import shown_name, style_axes

FILE_NAME = "metrics.csv"
STEP = "step"
LAMBDA = "λ"
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
# Okabe and Ito's colours without yellow, which is faint on white.
RUN_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Colour and dashes of each run; more runs than colours repeat the colours with other dashes.
RUN_STYLES: list[dict[str, Any]] = list(cycler("linestyle", ["-", "--", ":", "-."]) * cycler("color", RUN_COLORS))
N_COLUMNS = 4
# Axes of scores span at least this much, so that small differences look small.
MIN_PERCENT_SPAN = 5


class Curve(NamedTuple):
    """Logged values of one quantity.

    Attributes:
        steps: optimiser steps done when each value was logged, ascending.
        values: one per entry of ``steps``.
    """

    steps: np.ndarray
    values: np.ndarray


# The curves of a run by logged name.
Curves = Mapping[str, Curve]


def read_runs(run_dirs: Sequence[Path]) -> dict[str, Curves]:
    """Read several runs in order, by name. Folders with equal names also get the names of their parents.

    Raises:
        DataError: as in ``read_run``.
    """
    distinct = {run_dir.resolve(): run_dir for run_dir in run_dirs}
    depth = 1
    while len(names := {"/".join(path.parts[-depth:]): given for path, given in distinct.items()}) < len(distinct):
        depth += 1
    return {name: read_run(run_dir) for name, run_dir in names.items()}


def read_run(run_dir: Path) -> Curves:
    """Read the curves of a run folder; empty columns are left out.

    Raises:
        DataError: ``metrics.csv`` is missing, was not written by a training run, or has no values yet.
    """
    path = run_dir / FILE_NAME
    if not path.is_file():
        raise DataError(f"{run_dir}: not the folder of a training run: it has no {FILE_NAME}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            # A run in progress may have written half of its last row.
            rows = [row for row in table if (row.get(STEP) or "").isdigit()]
            columns = [name for name in table.fieldnames or [] if name != STEP]
        curves = {column: curve for column in columns if len((curve := _curve(rows, column)).values)}
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: not the metrics of a training run ({error})") from error
    if not curves:
        raise DataError(f"{path}: no values of a training run; a run writes the first after scalar_log_freq steps")
    return curves


def curves_figure(runs: Mapping[str, Curves]) -> Figure:
    """Draw one panel per logged quantity over optimiser steps; quantities that are 0 throughout are left out.

    Training losses are drawn thin as logged, and thick as their running median. Points are validations. A dashed
    vertical line marks the last step logged with λ = 0.

    Args:
        runs: curves by the run's name, at least one; they may have logged different quantities.
    """
    styles = dict(zip(runs, cycle(RUN_STYLES), strict=False))
    starts = {name: step for name, run in runs.items() if (step := object_start(run)) is not None}
    titles = _titles(runs)
    if not titles:
        raise DataError(f"{', '.join(runs)}: every logged value is 0, so there is no curve to draw")
    n_columns = min(N_COLUMNS, len(titles))
    n_rows = math.ceil(len(titles) / n_columns)
    figure = Figure(figsize=(3.1 * n_columns, 2.1 * n_rows + 0.8), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).flatten().tolist()
    for ax, (column, title) in zip(axes, titles.items(), strict=False):
        for name, run in runs.items():
            if column in run:
                _draw_curve(ax, run[column], column, styles[name], 0.45 / math.sqrt(len(runs)))
        for name, step in starts.items():
            color = "0.5" if len(set(starts.values())) == 1 else styles[name]["color"]
            ax.axvline(step, color=color, linestyle=(0, (4, 3)), linewidth=0.9, zorder=1)
        style_axes(ax, title)
        if "(%)" in title:
            low, high = ax.get_ylim()
            widened = max(0, MIN_PERCENT_SPAN - (high - low)) / 2
            ax.set_ylim(low - widened, high + widened)
    for ax in axes[len(titles) :]:
        ax.set_visible(False)
    for ax in axes[len(titles) - n_columns : len(titles)]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("steps", fontsize=8)
    axes[0].set_xlim(left=0)
    handles = [Line2D([], [], **style, linewidth=2, label=shown_name(name)) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(runs), 4), fontsize=9, frameon=False)
    note = "points: validations · thin: as logged, thick: running median over a twentieth of the run"
    figure.supxlabel(note + " · dashed: λ > 0 from here on" * bool(starts), fontsize=8, color="0.35")
    return figure


def object_start(run: Curves) -> int | None:
    """The last step logged with λ = 0 before λ sets in; None if λ stays 0 or was never 0."""
    curve = run.get(LAMBDA)
    if curve is None or not (curve.values > 0).any() or curve.values[0] > 0:
        return None
    return int(curve.steps[np.argmax(curve.values > 0) - 1])


def _curve(rows: Sequence[dict[str, str]], column: str) -> Curve:
    logged = [row for row in rows if row[column]]
    steps = [int(row[STEP]) for row in logged]
    return Curve(np.array(steps, dtype=int), np.array([float(row[column]) for row in logged]))


def _titles(runs: Mapping[str, Curves]) -> dict[str, str]:
    """Panel titles of the logged quantities that are not 0 throughout, in reading order."""
    shown = {column for run in runs.values() for column, curve in run.items() if curve.values.any()}
    others = sorted(column for column in shown - PANELS.keys() if column.startswith("loss/"))
    return {column: title for column, title in PANELS.items() if column in shown} | {name: name for name in others}


def _draw_curve(ax: Axes, curve: Curve, column: str, style: dict[str, Any], faint: float) -> None:
    if column.startswith(VALIDATION_PREFIXES):
        size = min(3.5, max(1.5, 100 / len(curve.values)))
        ax.plot(curve.steps, curve.values, linewidth=1.1, marker="o", markersize=size, zorder=3, **style)
    elif column == LAMBDA:
        # Constant since the row before: λ switches just after the last row with λ = 0, not halfway to the next.
        ax.plot(curve.steps, curve.values, linewidth=1.5, drawstyle="steps-pre", zorder=3, **style)
    else:
        ax.plot(curve.steps, curve.values, linewidth=0.7, alpha=faint, color=style["color"], zorder=2)
        # Over a twentieth of the run, at least three values.
        median = median_filter(curve.values, max(3, len(curve.values) // 20))
        ax.plot(curve.steps, median, linewidth=1.8, zorder=3, **style)
