"""Rows of pictures: image, label map and predicted maps side by side, with the classes' colours."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from eagle.data.datasets.base import VOID, Classes
from eagle.data.loading.transforms import unnormalize
from eagle.data.palette import VOID_COLOR, colored
from eagle.evaluation.picture import Picture
from eagle.figures.rendering import shown_name, write_figure

PANEL_INCHES = 1.9
LEGEND_LINE_INCHES = 0.15
VOID_NAME = "void / unmatched"


def draw_segmentation_grid(
    path: Path, pictures: Sequence[Picture], class_of_cluster: Mapping[str, np.ndarray], classes: Classes
) -> None:
    """Write the figure of ``segmentation_grid`` as PNG; see there."""
    write_figure(path, segmentation_grid(pictures, class_of_cluster, classes))


def segmentation_grid(
    pictures: Sequence[Picture],
    class_of_cluster: Mapping[str, np.ndarray],
    classes: Classes,
    labelled: bool = True,
    title: str = "",
) -> Figure:
    """One row for each picture: image, label, then a column for each map, clusters shown as their classes.

    Args:
        pictures: what to show, at least one.
        class_of_cluster: the columns; by map name, each cluster's class (−1 = none, drawn as void).
        classes: names and palette; the legend has those that are shown.
        labelled: whether the pictures have labels to show.
        title: above everything; empty for none.
    """
    columns = ["image", *(["label"] if labelled else []), *class_of_cluster]
    rows = [_maps(picture, class_of_cluster, labelled) for picture in pictures]
    legend = _legend_entries({int(class_id) for maps in rows for ids in maps for class_id in np.unique(ids)}, classes)
    width = PANEL_INCHES * len(columns)
    n_legend_columns = _fitting_columns([str(entry.get_label()) for entry in legend], width)
    legend_inches = LEGEND_LINE_INCHES * math.ceil(len(legend) / n_legend_columns)
    figure = Figure((width, PANEL_INCHES * len(rows) + legend_inches + (0.5 if title else 0.3)), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, picture, maps in zip(axes, pictures, rows, strict=True):
        rgb = unnormalize(picture.img).clamp(0, 1).permute(1, 2, 0).numpy()
        for ax, panel in zip(row, [rgb, *(colored(ids, classes.palette) for ids in maps)], strict=True):
            ax.imshow(panel, interpolation="auto" if panel is rgb else "nearest")
            ax.set_axis_off()
    for ax, heading in zip(axes[0], columns, strict=True):
        ax.set_title(heading, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=9)
    figure.legend(handles=legend, loc="outside lower center", ncols=n_legend_columns, fontsize=7, frameon=False)
    return figure


def _maps(picture: Picture, class_of_cluster: Mapping[str, np.ndarray], labelled: bool) -> list[np.ndarray]:
    """The class ids of a row's panels, H×W each."""
    predicted = [table[picture.clusters[name]] for name, table in class_of_cluster.items()]
    return [picture.label, *predicted] if labelled else predicted


def _legend_entries(shown: set[int], classes: Classes) -> list[Patch]:
    """A patch for each class that is shown, void last."""
    entries = [
        Patch(color=tuple(classes.palette[class_id] / 255), label=shown_name(classes.names[class_id]))
        for class_id in sorted(shown - {VOID})
    ]
    return entries + [Patch(color=VOID_COLOR, label=VOID_NAME)] * (VOID in shown)


def _fitting_columns(names: Sequence[str], width: float) -> int:
    """Columns of a legend that fit so many inches, by the mean width of a letter."""
    column_inches = 0.5 + 0.06 * max(map(len, names))
    return max(1, min(len(names), int(width / column_inches)))
