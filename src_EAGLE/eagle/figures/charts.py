"""Charts: confusion matrices, class frequencies, trees of clusters, and scores of many runs."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch
from scipy.cluster.hierarchy import dendrogram

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS_NAME
from eagle.evaluation.tables import Run, by_setting, table_maps
from eagle.figures.drawing import shown_name, style_axes

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


ROW_INCHES = 0.29
MOST_BARS_INCHES = 30.0
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
    row_inches = min(ROW_INCHES, MOST_BARS_INCHES / n)
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


# Inches of a leaf's row and of the drawing of the merges.
ROW, TREE_WIDTH = 0.34, 3.2


def tree_figure(
    merges: np.ndarray, cluster_of_leaf: Sequence[int], examples: np.ndarray, palette: np.ndarray
) -> Figure:
    """Draw the merges, in the order in which they join clusters, and a row of example patches for each leaf.

    Args:
        merges: (L − 1)×2, see ``ClusterTree``; leaves have their ids at the finest cut, as after ``pruned``.
        cluster_of_leaf: the cluster of each leaf at the cut that the colours show.
        examples: pictures of patches of each leaf, L×n×side×side×3 uint8.
        palette: a colour for each cluster, n×3 uint8.
    """
    n_leaves, n_examples = examples.shape[:2]
    width = TREE_WIDTH + ROW * n_examples
    figure = Figure(figsize=(width, ROW * n_leaves + 0.5))
    left, bottom, height = 0.02, 0.35 / figure.get_figheight(), ROW * n_leaves / figure.get_figheight()
    axes = figure.add_axes((left, bottom, (TREE_WIDTH - 0.4) / width, height))
    colors = ["#{:02x}{:02x}{:02x}".format(*palette[cluster]) for cluster in cluster_of_leaf]
    order = list(range(n_leaves))
    if n_leaves > 1:
        # Heights are ranks: the cut at n clusters lies left of the n − 1 merges that are drawn last.
        linkage = np.column_stack([merges, np.arange(1, n_leaves), np.zeros(n_leaves - 1)]).astype(float)
        # Above the cut, lines are grey.
        color_of = dict(enumerate(colors))
        for node, (first, second) in enumerate(merges.tolist(), n_leaves):
            color_of[node] = color_of[first] if color_of[first] == color_of[second] else "#888888"
        with mpl.rc_context({"lines.linewidth": 1.2}):
            drawn = dendrogram(
                linkage, orientation="left", ax=axes, no_labels=True, link_color_func=color_of.__getitem__
            )
        order = drawn["leaves"]
    for row, leaf in enumerate(order):
        text = f"{cluster_of_leaf[leaf]} · {leaf}"
        axes.text(0, 10 * row + 5, text, fontsize=6, color="0.25", va="bottom", ha="right", clip_on=False)
    axes.set_axis_off()
    pictures = figure.add_axes((1 - ROW * n_examples / width - 0.01, bottom, ROW * n_examples / width, height))
    side = examples.shape[2]
    grid = examples[order[::-1]].transpose(0, 2, 1, 3, 4).reshape(n_leaves * side, n_examples * side, 3)
    pictures.imshow(grid, aspect="auto", interpolation="nearest")
    pictures.set_axis_off()
    note = f"cluster of {len(set(cluster_of_leaf))} (colours) · cluster of {n_leaves}"
    figure.text(0.02, 0.1 / figure.get_figheight(), note, fontsize=8)
    return figure


def runs_figure(runs: Sequence[Run]) -> Figure:
    """Draw the mIoU of the cluster probe: a panel per data set, a row per setting, a dot per run, a bar at the mean."""
    datasets, settings = list(dict.fromkeys(run.dataset for run in runs)), list(by_setting(runs))
    maps = [name for name in table_maps(runs) if name.startswith("cluster")]
    figure = Figure(figsize=(2.5 + 2.6 * len(datasets), 1.3 + 0.28 * len(settings) * len(maps)), layout="constrained")
    panels = figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0]
    for axes, dataset in zip(panels, datasets, strict=True):
        for number, name in enumerate(maps):
            shift, color = 0.7 * ((number + 0.5) / len(maps) - 0.5), f"C{number}"
            dots = [(run.miou(name), settings.index(run.name) + shift) for run in runs if run.dataset == dataset]
            axes.plot(*zip(*dots, strict=True), "o", color=color, alpha=0.6, markersize=4, label=name)
            for row in {row for _, row in dots}:
                known = [miou for miou, at in dots if at == row and not np.isnan(miou)]
                if known:
                    axes.plot([np.mean(known)], [row], "|", color=color, markersize=12, markeredgewidth=2)
        axes.set_title(shown_name(dataset), fontsize=10)
        axes.set_xlabel("mIoU (%)")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    shown = [name.replace(", ", "\n").replace("$", r"\$") for name in settings]  # a line for each key
    panels[0].set_yticks(range(len(settings)), shown, fontsize=8)
    panels[0].invert_yaxis()
    handles, _ = panels[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=len(maps), fontsize=8, frameon=False)
    return figure


def trees_figure(runs: Sequence[Run]) -> Figure | None:
    """Draw the mIoU of trees of clusters against that of the trained probes, most refined: a dot per run, a colour per
    data set, and the diagonal; None without pairs of NAME and NAME_tree.
    """
    probes = {run.checkpoint.with_stem(f"{run.checkpoint.stem}_tree"): run for run in runs if run.checkpoint}
    last = [name for name in table_maps(runs) if name.startswith("cluster")][-1]
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for dataset in dict.fromkeys(run.dataset for run in runs):
        pairs = [(probes[run.checkpoint], run) for run in runs if run.checkpoint in probes and run.dataset == dataset]
        if pairs:
            dots = [(probe.miou(last), tree.miou(last)) for probe, tree in pairs]
            axes.plot(*zip(*dots, strict=True), "o", alpha=0.7, label=shown_name(dataset))
    if not axes.lines:
        return None
    ends = np.concatenate([dots.get_xydata() for dots in axes.lines])
    span = (np.nanmin(ends) - 2, np.nanmax(ends) + 2)
    axes.plot(span, span, "-", color="0.6", linewidth=1, zorder=0)
    axes.set(xlabel="trained probe: mIoU (%)", ylabel="tree: mIoU (%)", xlim=span, ylim=span, aspect="equal")
    axes.legend(frameon=False)
    return figure
