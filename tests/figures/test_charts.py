"""Confusion matrices and bars: every cell and bar is the number that it stands for."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from eagle.data.datasets.base import Classes
from eagle.data.labels import distinct_palette
from eagle.figures.charts import LABEL_COLOR, confusion_figure, frequencies_figure


def numbered_classes(n):
    return Classes(tuple(f"class {i}" for i in range(n)), distinct_palette(n))


@pytest.mark.parametrize("n", [1, 3])
def test_confusion__a_row_shows_where_a_labels_pixels_went(n):
    rng = np.random.default_rng(n)
    confusion, unmatched = rng.integers(1, 50, (n, n)), rng.integers(1, 50, n)
    confusion[:, 0] = unmatched[0] = 0
    axes = confusion_figure(confusion, numbered_classes(n), "title", unmatched).axes[0]
    shown = np.asarray(axes.images[0].get_array())
    written = {text.get_position(): text.get_text() for text in axes.texts}
    for label in range(n):
        went = np.array([*(confusion[predicted, label] for predicted in range(n)), unmatched[label]])
        expected = 100 * went / max(went.sum(), 1)
        assert shown[label].tolist() == pytest.approx(expected.tolist())
        assert [written.get((i, label)) for i in range(n + 1)] == [f"{s:.0f}" if s >= 0.5 else None for s in expected]
    names = [f"class {i}" for i in range(n)]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [*names, "no class"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["class 0 (absent)", *names[1:]]


@pytest.mark.parametrize("labelled", [[40, 50, 10], []])
def test_frequencies__bars_have_the_classes_shares_and_colours(labelled):
    names, predicted, colors = ["a", "$b$", "c", "cluster 3 (no class)"], np.array([10, 0, 30, 60]), distinct_palette(4)
    axes = frequencies_figure(names, colors, predicted, np.array(labelled), "title").axes[0]
    shown = [text.get_text() for text in axes.get_yticklabels()]
    order = [1, 0, 2, 3] if labelled else [0, 1, 2, 3]
    assert shown == [names[i].replace("$", r"\$") for i in order], "the most frequent label first, clusters last"
    bars = {name: [] for name in shown}
    for patch in sorted(axes.patches, key=lambda patch: patch.get_y()):
        name = shown[round(patch.get_y() + patch.get_height() / 2)]
        bars[name].append((round(patch.get_width()), to_rgb(patch.get_facecolor())))
    for place, i in enumerate(order):
        expected = [(labelled[i], to_rgb(LABEL_COLOR))] if i < len(labelled) else []
        assert bars[shown[place]] == [*expected, (predicted[i], tuple(colors[i] / 255))]
