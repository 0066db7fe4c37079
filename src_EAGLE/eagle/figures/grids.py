"""Grids of panels: one row per image, titles above, colour bar and legend below."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor

from eagle.data.datasets.base import VOID, Classes
from eagle.data.labels import VOID_COLOR, colored
from eagle.data.views import photograph
from eagle.figures.drawing import shown_name

# A photograph, which may be interpolated, or h×w×3 uint8 colours, which are drawn as they are.
Panel = Image.Image | np.ndarray

PANEL_INCHES, GAP_INCHES = 1.9, 0.06
# Height of a row divided by the panel width. Taller images are narrower than their column.
ROW_HEIGHTS = (0.3, 1.4)
TITLE_POINTS, SMALL_POINTS = 9, 7
# Room for a title, the names beside the rows, the colour bar, and a line and a letter at SMALL_POINTS.
TITLE_INCHES, NAMES_INCHES, BAR_INCHES, LINE_INCHES, LETTER_INCHES = 0.22, 0.2, 0.34, 0.15, 0.06
VOID_NAME = "void / unmatched"
# Diverging, dark at zero, perceptually uniform and safe for colour-blind readers (Crameri's scientific colour maps).
EIGENVECTOR_COLORS = matplotlib.colormaps["managua"]
# The colour range ends at this quantile of the magnitudes, so that a few outlying patches don't fade all others.
COLOR_LIMIT_QUANTILE = 0.98


@dataclass(frozen=True)
class Picture:
    """One image and its maps.

    Attributes:
        img: 3×H×W, normalised.
        label: H×W class ids, −1 = void.
        clusters: H×W cluster ids by map name.
    """

    img: Tensor
    label: np.ndarray
    clusters: dict[str, np.ndarray]


def panel_grid(
    rows: Sequence[Mapping[str, Panel]],
    names: Sequence[str] = (),
    legend: Sequence[Patch] = (),
    title: str = "",
    bar_below: str = "",
) -> Figure:
    """Draw rows of panels.

    Args:
        rows: at least one; the panels of an image by title, the image first. All rows have the same titles.
        names: a name for each row; none for no names.
        legend: the classes shown, see ``class_legend``.
        title: above everything.
        bar_below: title of the column under which the colour bar of eigenvectors is drawn; "" for no bar.
    """
    titles = list(rows[0])
    images = (np.asarray(next(iter(row.values()))) for row in rows)
    aspects = [image.shape[0] / image.shape[1] for image in images]
    heights = [PANEL_INCHES * min(max(aspect, ROW_HEIGHTS[0]), ROW_HEIGHTS[1]) for aspect in aspects]
    left = GAP_INCHES + (NAMES_INCHES if names else 0)
    width = left + len(titles) * (PANEL_INCHES + GAP_INCHES)
    longest = max((len(str(entry.get_label())) for entry in legend), default=0)
    n_legend_columns = max(1, min(len(legend), int(width / (0.5 + LETTER_INCHES * longest))))
    n_legend_lines = math.ceil(len(legend) / n_legend_columns)
    top = TITLE_INCHES * (1 + bool(title)) + GAP_INCHES
    below_bar = LINE_INCHES * n_legend_lines + 2 * GAP_INCHES
    bottom = below_bar + (BAR_INCHES if bar_below else 0)
    height = top + sum(heights) + GAP_INCHES * (len(rows) - 1) + bottom

    figure = Figure((width, height))
    grid = {"left": left / width, "right": 1 - GAP_INCHES / width, "top": 1 - top / height, "bottom": bottom / height}
    grid |= {"wspace": GAP_INCHES / PANEL_INCHES, "hspace": GAP_INCHES * len(rows) / sum(heights)}
    axes = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights, gridspec_kw=grid)
    for row, row_axes, aspect in zip(rows, axes, aspects, strict=True):
        for ax, panel in zip(row_axes, row.values(), strict=True):
            smooth = isinstance(panel, Image.Image)
            ax.imshow(np.asarray(panel), interpolation="auto" if smooth else "nearest", aspect="auto")
            ax.set_box_aspect(aspect)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
    for ax, panel_title in zip(axes[0], titles, strict=True):
        ax.set_title(panel_title, fontsize=TITLE_POINTS)
    for ax, name, row_height in zip(axes[:, 0], names, heights, strict=False):
        ax.set_ylabel(shown_name(name, longest=int(row_height / LETTER_INCHES)), fontsize=SMALL_POINTS)
    if bar_below:
        x = left + titles.index(bar_below) * (PANEL_INCHES + GAP_INCHES)
        _draw_color_bar(figure.add_axes((x / width, (bottom - 0.14) / height, PANEL_INCHES / width, 0.08 / height)))
    if title:
        figure.suptitle(title, fontsize=TITLE_POINTS, y=1 - GAP_INCHES / height)
    if legend:
        figure.legend(
            handles=legend,
            loc="upper center",
            bbox_to_anchor=(0.5, (below_bar - GAP_INCHES) / height),
            borderaxespad=0,
            ncols=n_legend_columns,
            fontsize=SMALL_POINTS,
            frameon=False,
        )
    return figure


def class_legend(maps: Sequence[np.ndarray], classes: Classes, void_name: str) -> list[Patch]:
    """A patch for each class in some H×W maps of class ids, in order of ids, void last."""
    shown = set().union(*(np.unique(ids).tolist() for ids in maps))
    entries = [(classes.names[i], classes.palette[i] / 255) for i in sorted(shown - {VOID})]
    entries += [(void_name, VOID_COLOR)] * (VOID in shown)
    return [
        Patch(facecolor=tuple(color), edgecolor="0.6", linewidth=0.5, label=shown_name(name)) for name, color in entries
    ]


def eigenvector_colors(values: np.ndarray) -> np.ndarray:
    """Colour an eigenvector, h×w → h×w×3 uint8; the colour range is symmetric about zero."""
    limit = np.quantile(np.abs(values), COLOR_LIMIT_QUANTILE) or 1.0
    return EIGENVECTOR_COLORS(np.clip((values / limit + 1) / 2, 0, 1), bytes=True)[:, :, :3]


def segmentation_grid(
    pictures: Sequence[Picture],
    class_of_cluster: Mapping[str, np.ndarray],
    classes: Classes,
    labelled: bool = True,
    title: str = "",
) -> Figure:
    """One row per picture: image, label, then one column per map, in which clusters are shown as their classes.

    Args:
        pictures: at least one.
        class_of_cluster: the class of each cluster by map name, one column each (−1 = none, drawn as void).
        classes: names and palette; the legend lists the classes that are shown.
        labelled: whether the pictures have labels to show.
        title: above everything.
    """
    rows: list[dict[str, Panel]] = []
    shown: list[np.ndarray] = []
    for picture in pictures:
        maps = {"label": picture.label} if labelled else {}
        maps |= {name: table[picture.clusters[name]] for name, table in class_of_cluster.items()}
        rows.append({"image": photograph(picture.img)} | {n: colored(ids, classes.palette) for n, ids in maps.items()})
        shown += maps.values()
    return panel_grid(rows, legend=class_legend(shown, classes, VOID_NAME), title=title)


def _draw_color_bar(ax: Axes) -> None:
    """The colours of eigenvectors; their values have no unit."""
    colors = ScalarMappable(Normalize(-1, 1), EIGENVECTOR_COLORS)
    bar = Colorbar(ax, colors, orientation="horizontal", ticks=[-1, 0, 1])
    bar.set_ticklabels(["negative", "0", "positive"], fontsize=SMALL_POINTS)
