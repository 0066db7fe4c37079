"""Confusion matrix, each label's pixels spread over the predicted classes."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from eagle.data.datasets.base import Classes
from eagle.figures.rendering import shown_name, write_figure

NO_CLASS_NAME = "no class"
CELL_INCHES = 0.36
# A matrix of more classes has smaller cells, and no numbers in them.
MOST_INCHES = 13.0
# Room for the title and the colour bar.
LEAST_INCHES = (4.6, 2.8)
MOST_ANNOTATED = 32


def draw_confusion(path: Path, confusion: np.ndarray, classes: Classes, title: str) -> None:
    """Write the figure of ``confusion_figure`` as PNG; see there."""
    write_figure(path, confusion_figure(confusion, classes, title))


def confusion_figure(
    confusion: np.ndarray, classes: Classes, title: str, unmatched: np.ndarray | None = None
) -> Figure:
    """A matched confusion matrix; numbers are whole percents of a label's pixels, those below ½ left out.

    Args:
        confusion: n×n pixel counts, row = predicted class, column = label (as in ``Scores``).
        classes: names for the axes.
        title: above the matrix.
        unmatched: n pixel counts, the labels' pixels in clusters without a class: a last column; None for no column.
    """
    by_label = confusion.T.astype(float)
    predicted = [*classes.names]
    if unmatched is not None:
        by_label = np.column_stack([by_label, unmatched])
        predicted.append(NO_CLASS_NAME)
    share = 100 * by_label / np.maximum(by_label.sum(axis=1, keepdims=True), 1)
    n = len(predicted)
    cell = min(CELL_INCHES, MOST_INCHES / n)
    size = min(8.0, 60 * cell)
    names_inches = max(len(shown_name(name)) for name in predicted) * 0.6 * size / 72
    width, height = 1.4 + names_inches + cell * n, 0.9 + names_inches + cell * len(classes)
    figure = Figure((max(width, LEAST_INCHES[0]), max(height, LEAST_INCHES[1])), layout="constrained")
    ax = figure.subplots()
    shown = ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
    ax.set_xticks(range(n), [shown_name(name) for name in predicted], rotation=90, fontsize=size)
    ax.set_yticks(range(len(classes)), [shown_name(name) for name in classes.names], fontsize=size)
    ax.tick_params(length=0)
    ax.spines[["top", "right", "bottom", "left"]].set_color("0.7")
    ax.set_xlabel("predicted", fontsize=9)
    ax.set_ylabel("label", fontsize=9)
    ax.set_title(title, fontsize=9)
    if n <= MOST_ANNOTATED:
        for (i, j), value in np.ndenumerate(share):
            if value >= 0.5:
                color = "white" if value > 55 else "black"
                ax.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    bar = figure.colorbar(shown, shrink=0.6, aspect=30, pad=0.02)
    bar.set_label("% of the label's pixels", fontsize=8)
    bar.ax.tick_params(labelsize=8, length=0)
    bar.ax.spines["outline"].set_visible(False)
    return figure
