"""The layout of every figure of panels: one row per image, titles above, colour bar, legend and note below."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from eagle.data.datasets.base import VOID, Classes
from eagle.data.labels import VOID_COLOR
from eagle.figures.panels import EIGENVECTOR_COLORS, EigenvectorPanel, Panel
from eagle.figures.rendering import shown_name

PANEL_INCHES, GAP_INCHES = 1.9, 0.06
# Height of a row divided by the panel width. Taller images are narrower than their column.
ROW_HEIGHTS = (0.3, 1.4)
TITLE_POINTS, SMALL_POINTS = 9, 7
# Room for a title, the names beside the rows, the colour bar, and a line and a letter at SMALL_POINTS.
TITLE_INCHES, NAMES_INCHES, BAR_INCHES, LINE_INCHES, LETTER_INCHES = 0.22, 0.36, 0.34, 0.15, 0.06


@dataclass(frozen=True)
class PanelRow:
    """The panels of one image.

    Attributes:
        panels: the image first; every row of a figure has the same kinds of panels.
        name: written beside the row, as is ``caption``.
        caption: a second line.
    """

    panels: Sequence[Panel]
    name: str = ""
    caption: str = ""

    @property
    def aspect(self) -> float:
        """Height of the image divided by its width."""
        height, width, _ = self.panels[0].colors().shape
        return height / width


def panel_grid(
    rows: Sequence[PanelRow], legend: Sequence[Patch] = (), legend_title: str = "", title: str = "", note: str = ""
) -> Figure:
    """Draw rows of panels. Label maps and eigenvectors are never interpolated.

    Args:
        rows: at least one.
        legend: the classes shown, see ``class_legend``.
        legend_title: which panels the legend explains.
        title: above everything.
        note: a few sentences below everything.
    """
    n_columns = len(rows[0].panels)
    heights = [PANEL_INCHES * min(max(row.aspect, ROW_HEIGHTS[0]), ROW_HEIGHTS[1]) for row in rows]
    left = GAP_INCHES + (NAMES_INCHES if rows[0].name else 0)
    width = left + n_columns * (PANEL_INCHES + GAP_INCHES)
    eigenvectors = [i for i, panel in enumerate(rows[0].panels) if isinstance(panel, EigenvectorPanel)]
    note_lines = textwrap.wrap(note, int(width / LETTER_INCHES))
    n_legend_columns = _fitting_columns(legend, width)
    n_legend_lines = (math.ceil(len(legend) / n_legend_columns) + bool(legend_title)) if legend else 0
    top = TITLE_INCHES * (1 + bool(title)) + GAP_INCHES
    below_bar = LINE_INCHES * (n_legend_lines + len(note_lines)) + 2 * GAP_INCHES
    bottom = below_bar + (BAR_INCHES if eigenvectors else 0)
    height = top + sum(heights) + GAP_INCHES * (len(rows) - 1) + bottom

    figure = Figure((width, height))
    grid = {"left": left / width, "right": 1 - GAP_INCHES / width, "top": 1 - top / height, "bottom": bottom / height}
    grid |= {"wspace": GAP_INCHES / PANEL_INCHES, "hspace": GAP_INCHES * len(rows) / sum(heights)}
    axes = figure.subplots(len(rows), n_columns, squeeze=False, height_ratios=heights, gridspec_kw=grid)
    for row, row_axes, row_height in zip(rows, axes, heights, strict=True):
        _draw_row(row_axes, row, max_letters=int(row_height / LETTER_INCHES))
    for ax, panel in zip(axes[0], rows[0].panels, strict=True):
        ax.set_title(panel.title, fontsize=TITLE_POINTS)
    if eigenvectors:
        x = left + eigenvectors[0] * (PANEL_INCHES + GAP_INCHES)
        _draw_color_bar(figure.add_axes((x / width, (bottom - 0.14) / height, PANEL_INCHES / width, 0.08 / height)))
    if title:
        figure.suptitle(title, fontsize=TITLE_POINTS, y=1 - GAP_INCHES / height)
    if legend:
        figure.legend(
            handles=legend,
            title=legend_title,
            loc="upper center",
            bbox_to_anchor=(0.5, (below_bar - GAP_INCHES) / height),
            borderaxespad=0,
            ncols=n_legend_columns,
            fontsize=SMALL_POINTS,
            title_fontsize=SMALL_POINTS,
            frameon=False,
        )
    figure.text(
        left / width, GAP_INCHES / height, "\n".join(note_lines), fontsize=SMALL_POINTS, color="0.35", va="bottom"
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


def _draw_row(axes: Sequence[Axes], row: PanelRow, max_letters: int) -> None:
    for ax, panel in zip(axes, row.panels, strict=True):
        ax.imshow(panel.colors(), interpolation="auto" if panel.smooth else "nearest", aspect="auto")
        ax.set_box_aspect(row.aspect)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    lines = [shown_name(line, max_letters) for line in (row.name, row.caption) if line]
    axes[0].set_ylabel("\n".join(lines), fontsize=SMALL_POINTS)


def _draw_color_bar(ax: Axes) -> None:
    """The colours of eigenvectors; their values have no unit."""
    colors = ScalarMappable(Normalize(-1, 1), EIGENVECTOR_COLORS)
    bar = Colorbar(ax, colors, orientation="horizontal", ticks=[-1, 0, 1])
    bar.set_ticklabels(["negative", "0", "positive"], fontsize=SMALL_POINTS)


def _fitting_columns(legend: Sequence[Patch], width: float) -> int:
    """The number of legend columns that fit into ``width`` inches."""
    longest = max((len(str(entry.get_label())) for entry in legend), default=0)
    return max(1, min(len(legend), int(width / (0.5 + LETTER_INCHES * longest))))
