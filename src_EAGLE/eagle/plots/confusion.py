"""Confusion matrix, each label's pixels spread over the predicted classes."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from eagle.data.dataset import Classes
from eagle.files import written_atomically

MOST_ANNOTATED = 16


def draw_confusion(path: Path, confusion: np.ndarray, classes: Classes, title: str) -> None:
    """Draw a matched confusion matrix.

    Args:
        path: PNG to write.
        confusion: n×n pixel counts, row = predicted class, column = label (as in ``Scores``).
        classes: names for the axes.
        title: above the matrix.
    """
    n = len(classes)
    by_label = confusion.T.astype(float)
    share = 100 * by_label / np.maximum(by_label.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.42 * n
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    ax = figure.subplots()
    shown = ax.imshow(share, cmap="viridis", vmin=0, vmax=100)
    ax.set_xticks(range(n), classes.names, rotation=90, fontsize=8)
    ax.set_yticks(range(n), classes.names, fontsize=8)
    ax.set_xlabel("predicted")
    ax.set_ylabel("label")
    ax.set_title(title, fontsize=10)
    if n <= MOST_ANNOTATED:
        for (i, j), value in np.ndenumerate(share):
            ax.text(
                j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color="white" if value < 60 else "black"
            )
    figure.colorbar(shown, label="% of the label's pixels", shrink=0.8)
    with written_atomically(path) as temporary:
        figure.savefig(temporary, dpi=100)
