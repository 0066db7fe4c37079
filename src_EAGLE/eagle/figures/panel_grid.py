"""A figure of panels: one row for each image, titles above; a colour bar, a legend and a note below.

Panels are put on the page pixel by pixel, never interpolated, so that patches and borders stay sharp.
"""

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import IdentityTransform

from eagle.figures.panels import EIGENVECTOR_COLORS, EigenvectorPanel, Panel, Size
from eagle.files import written_atomically

# A panel is so many inches wide whatever its pixels, so that letters keep their size beside it.
PANEL_INCHES = 1.5
# A panel's height by its width, at most; an image more upright is narrower than its column.
MOST_UPRIGHT = 1.4
MOST_LEGEND_COLUMNS = 10
TITLE_POINTS, LEGEND_POINTS, NOTE_POINTS = 9, 8, 7
GREY = "0.35"


@dataclass(frozen=True)
class PanelRow:
    """The panels of one image.

    Attributes:
        name: of the image.
        caption: a few words more.
        aspect: its height by its width.
        panels: as many, of the same kinds, in every row of a figure.
    """

    name: str
    caption: str
    aspect: float
    panels: Sequence[Panel]

    def size(self, width: int) -> Size:
        """Pixels (height, width) of a panel in a column of so many pixels."""
        height = width * min(self.aspect, MOST_UPRIGHT)
        return max(1, round(height)), max(1, min(width, round(height / self.aspect)))


@dataclass(frozen=True)
class ColorLegend:
    """What colours mean.

    Attributes:
        title: says which panels have them.
        names: one for each colour.
        colors: n×3, RGB in [0, 1].
    """

    title: str
    names: Sequence[str]
    colors: np.ndarray


def draw_panel_grid(
    path: Path, rows: Sequence[PanelRow], legend: ColorLegend | None, note: str, panel_width: int
) -> None:
    """Write the figure of ``panel_grid`` as PNG; see there."""
    with warnings.catch_warnings():
        # Names in scripts that matplotlib's font lacks; files keep them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = panel_grid(rows, legend, note, panel_width)
        with written_atomically(path) as temporary:
            figure.savefig(temporary, dpi="figure")


def panel_grid(rows: Sequence[PanelRow], legend: ColorLegend | None, note: str, panel_width: int) -> Figure:
    """Rows of panels.

    Args:
        rows: at least one.
        legend: of the classes that are shown.
        note: a few sentences, below everything.
        panel_width: pixels.
    """
    page = _Page(rows, panel_width)
    bottom = page.panels_bottom + page.color_bar_height
    if legend is not None:
        drawn, legend_top = page.legend(legend), bottom
        bottom += round(drawn.get_window_extent().height) + 2 * page.gap
    lines = page.wrapped(note)
    page.set_height(round(bottom + page.points(NOTE_POINTS) * 1.35 * len(lines)) + page.margin)
    page.put_panels()
    page.put_color_bar()
    if legend is not None:
        drawn.set_bbox_to_anchor((page.width / 2, page.height - legend_top), IdentityTransform())
    page.text(page.left, bottom, "\n".join(lines), NOTE_POINTS, va="top", ha="left", linespacing=1.3, color=GREY)
    return page.figure


class _Page:
    """Places on the page, in pixels from its left and its top."""

    def __init__(self, rows: Sequence[PanelRow], panel_width: int) -> None:
        self._rows = rows
        self._panel_width = panel_width
        self._dpi = panel_width / PANEL_INCHES
        self.gap = self._pixels(0.04)
        self.margin = self._pixels(0.08)
        self.left = self.margin + self._pixels(0.27)
        self._top = self.margin + self._pixels(0.2)
        n_columns = len(rows[0].panels)
        self.width = self.left + n_columns * (panel_width + self.gap) - self.gap + self.margin
        self.height = 0
        self.panels_bottom = self._top + sum(row.size(panel_width)[0] + self.gap for row in rows)
        self._eigenvectors = [i for i, panel in enumerate(rows[0].panels) if isinstance(panel, EigenvectorPanel)]
        self.color_bar_height = self._pixels(0.32) if self._eigenvectors else 0
        self.figure = Figure((self._inches(self.width), 1), self._dpi, facecolor="white")
        FigureCanvasAgg(self.figure)

    def points(self, size: float) -> float:
        """Pixels of a type size."""
        return size / 72 * self._dpi

    def set_height(self, height: int) -> None:
        """End the page; what is put on it needs its height."""
        self.height = height
        self.figure.set_size_inches(self._inches(self.width), self._inches(height))

    def text(self, x: float, y: float, words: str, points: float, **style: Any) -> Text:
        """Put letters on the page; names of files are no formulas, and may not be text in any encoding."""
        words = words.encode(errors="backslashreplace").decode()
        style |= {"transform": IdentityTransform(), "parse_math": False, "fontsize": points}
        return self.figure.text(x, self.height - y, words, **style)

    def put_panels(self) -> None:
        """Titles, names and panels."""
        for column, panel in enumerate(self._rows[0].panels):
            middle = self._column(column) + self._panel_width / 2
            self.text(middle, self._top - self.points(3), panel.title, TITLE_POINTS, va="bottom", ha="center")
        top = self._top
        for row in self._rows:
            height, width = row.size(self._panel_width)
            self._put_name(row, top, height)
            for column, panel in enumerate(row.panels):
                left = self._column(column) + (self._panel_width - width) // 2
                self.figure.figimage(panel.rgb((height, width)), left, self.height - top - height, origin="upper")
            top += height + self.gap

    def put_color_bar(self) -> None:
        """Below the eigenvectors: the colours of their values, which have no unit."""
        if not self._eigenvectors:
            return
        left, right = self._column(self._eigenvectors[0]), self._column(self._eigenvectors[-1]) + self._panel_width
        width, height = min(right - left, 2 * self._panel_width), self._pixels(0.07)
        bottom = self.height - self.panels_bottom - self.gap - height
        ax = self.figure.add_axes(
            (
                (left + right - width) / 2 / self.width,
                bottom / self.height,
                width / self.width,
                height / self.height,
            )
        )
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(-1, 1), EIGENVECTOR_COLORS), cax=ax, orientation="horizontal", ticks=[-1, 0, 1]
        )
        bar.set_ticklabels(["negative", "0", "positive"], fontsize=NOTE_POINTS)
        ax.tick_params(length=2, pad=1.5)

    def legend(self, legend: ColorLegend) -> Legend:
        """The legend in as many columns as the page is wide enough for, not at its place yet."""
        handles = [
            Patch(facecolor=tuple(color), edgecolor="0.6", linewidth=0.5, label=name)
            for name, color in zip(legend.names, legend.colors.tolist(), strict=True)
        ]
        style: dict[str, Any] = {"fontsize": LEGEND_POINTS, "title_fontsize": LEGEND_POINTS, "frameon": False}
        style |= {"borderaxespad": 0, "borderpad": 0.3, "handlelength": 1.2, "columnspacing": 1.2}
        for n_columns in range(min(len(handles), MOST_LEGEND_COLUMNS), 1, -1):
            drawn = self._legend(handles, n_columns, legend.title, style)
            if drawn.get_window_extent().width <= self.width:
                return drawn
            drawn.remove()
        return self._legend(handles, 1, legend.title, style)

    def wrapped(self, words: str) -> list[str]:
        """Lines of a note that fit the page, by the mean width of a letter."""
        return textwrap.wrap(words, int((self.width - self.left - self.margin) / (self.points(NOTE_POINTS) * 0.5)))

    def _legend(self, handles: Sequence[Patch], n_columns: int, title: str, style: dict[str, Any]) -> Legend:
        drawn = self.figure.legend(handles=handles, ncols=n_columns, loc="upper center", title=title, **style)
        for text in drawn.get_texts():
            text.set_parse_math(False)
        return drawn

    def _put_name(self, row: PanelRow, top: int, height: int) -> None:
        """Upwards beside a row, the caption nearer to the panels; what is longer than the row is high is cut."""
        right, middle = self.left - self.gap, top + height / 2
        for words, color in ((row.caption, GREY), (row.name, "black")):
            self._upwards(words, right, middle, height, color)
            right -= round(self.points(NOTE_POINTS) * 1.3)

    def _upwards(self, words: str, right: float, middle: float, height: int, color: str) -> None:
        style = {"rotation": 90, "va": "center", "ha": "right", "color": color}
        for length in range(len(words), 0, -1):
            shown = words if length == len(words) else f"{words[:length]}…"
            text = self.text(right, middle, shown, NOTE_POINTS, **style)
            if text.get_window_extent().height <= height:
                return
            text.remove()

    def _column(self, column: int) -> int:
        return self.left + column * (self._panel_width + self.gap)

    def _pixels(self, inches: float) -> int:
        return round(inches * self._dpi)

    def _inches(self, pixels: int) -> float:
        """Inches of whole pixels, and a bit, so that rounding loses none."""
        return (pixels + 0.1) / self._dpi
