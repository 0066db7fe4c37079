"""Rendered validation figures: every panel, bar and cell shows its own ids in the colours that the legend explains."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from eagle.data.datasets.base import Classes
from eagle.data.labels import VOID_COLOR, distinct_palette
from eagle.evaluation.metrics import match_clusters, score
from eagle.evaluation.picture import Picture
from eagle.figures.frequencies import LABEL_COLOR
from eagle.figures.rendering import rendered
from eagle.figures.segmentation_grid import VOID_NAME
from eagle.figures.validation import label_free_validation, labelled_validation

NAMES = ("sky", "_background_", "car", "tree", "a class with a name that is far too long for a legend", "$x_1$")
N, EXTRA = len(NAMES), 2
CLASSES = Classes(NAMES, distinct_palette(N))
SHOWN_NAMES = ("sky", "_background_", "car", "tree", "a class with a name that is…", r"\$x_1\$")
SIDE = 48


def stripes(ids):
    """Vertical stripes of equal width, H×W."""
    return np.repeat(ids, SIDE // len(ids))[None].repeat(SIDE, axis=0)


def confusion():
    """Cluster i is mostly class i + 1; the extra clusters hold some of every class."""
    counts = np.arange(1, (N + EXTRA) * N + 1).reshape(N + EXTRA, N) % 7
    counts[np.arange(N), (np.arange(N) + 1) % N] += 100 * np.arange(1, N + 1)
    return counts


@pytest.fixture
def pictures():
    """Two pictures in whose maps class 3 never occurs; cluster 6 has no class."""
    grey = torch.zeros(3, SIDE, SIDE)
    maps = {"linear": stripes([0, 1, 2, 5]), "cluster": stripes([0, 1, 4, 6])}
    others = {"linear": stripes([4, 4, 4, 1]), "cluster": stripes([5, 5, 5, 0])}
    return [Picture(0, grey, stripes([-1, 0, 1, 4]), maps), Picture(7, grey, stripes([2, 2, 5, 5]), others)]


def panel_pixels(figure, pixels, ax):
    """The part of the rendered figure that an axes covers, without its outermost pixels."""
    box = ax.get_window_extent()
    height = len(pixels)
    return pixels[round(height - box.y1) + 2 : round(height - box.y0) - 2, round(box.x0) + 2 : round(box.x1) - 2]


def share_of(pixels, color):
    return (np.abs(pixels.astype(int) - np.array(color)).max(axis=2) <= 2).mean()


def legend_colors(figure):
    (legend,) = figure.legends
    colors = [tuple(round(255 * part) for part in to_rgb(patch.get_facecolor())) for patch in legend.get_patches()]
    return dict(zip([text.get_text() for text in legend.get_texts()], colors, strict=True))


def check_panels(figure, maps, palette, names, void_name):
    """Each panel's pixels have the shares and colours of its ids, and the legend explains exactly what is shown."""
    pixels = rendered(figure)
    legend = legend_colors(figure)
    shown = {int(i) for of_panel in maps for i in np.unique(of_panel)}
    assert set(legend) == {void_name if i < 0 else names[i] for i in shown}
    panels = [ax for ax in figure.axes if ax.get_title() != "image" and ax not in images_of(figure)]
    assert len(panels) == len(maps)
    for ax, ids in zip(panels, maps, strict=True):
        drawn = panel_pixels(figure, pixels, ax)
        for i in shown:
            color = legend[void_name if i < 0 else names[i]]
            assert color == (VOID_COLOR if i < 0 else tuple(palette[i]))
            assert share_of(drawn, color) == pytest.approx((ids == i).mean(), abs=0.02)
    for ax in images_of(figure):
        # A grey of the normalisation's mean.
        assert share_of(panel_pixels(figure, pixels, ax), (124, 116, 104)) > 0.95


def images_of(figure):
    n_columns = 1 + max(ax.get_subplotspec().colspan.start for ax in figure.axes)
    return figure.axes[::n_columns]


def test_grid__panels_and_legend_agree(pictures):
    drawn = labelled_validation("After 5 batches", pictures, confusion(), CLASSES)
    class_of_cluster = match_clusters(confusion())
    assert class_of_cluster.tolist() == [1, 2, 3, 4, 5, 0, -1, -1]
    maps = []
    for picture in pictures:
        maps += [picture.label, picture.clusters["linear"], class_of_cluster[picture.clusters["cluster"]]]
    check_panels(drawn.figures["grid"], maps, CLASSES.palette, SHOWN_NAMES, VOID_NAME)
    assert "After 5 batches" in drawn.figures["grid"].get_suptitle()


def test_grid__without_labels_every_cluster_has_its_own_colour(pictures):
    counts = np.arange(1, 9)
    figure = label_free_validation("After 5 batches", pictures, counts).figures["grid"]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["image", "cluster"]
    names = [f"cluster {i}" for i in range(8)]
    maps = [picture.clusters["cluster"] for picture in pictures]
    check_panels(figure, maps, distinct_palette(8), names, None)


@pytest.mark.parametrize("n_classes", [2, 27])
def test_grid__legend_stays_inside(n_classes):
    label = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % n_classes
    picture = Picture(0, torch.zeros(3, SIDE, SIDE), label, {"cluster": label, "linear": label})
    classes = Classes(tuple(f"some class {i}" for i in range(n_classes)), distinct_palette(n_classes))
    for drawn in (
        labelled_validation("", [picture], np.eye(n_classes, dtype=int), classes),
        label_free_validation("", [picture], np.ones(n_classes, dtype=int)),
    ):
        figure = drawn.figures["grid"]
        height, width, _ = rendered(figure).shape
        box = figure.legends[0].get_window_extent()
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        assert box.y1 <= min(ax.get_window_extent().y0 for ax in figure.axes)


def test_confusion__cells_are_percents_of_their_label_with_unmatched_pixels_last():
    counts = confusion()
    drawn = labelled_validation("After 5 batches", [a_picture()], counts, CLASSES)
    figure = drawn.figures["confusion"]
    pixels = rendered(figure)
    ax = figure.axes[0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == list(SHOWN_NAMES)
    assert [text.get_text() for text in ax.get_xticklabels()] == [*SHOWN_NAMES, "no class"]
    shares = np.zeros((N, N + 1))
    class_of_cluster = match_clusters(counts)
    for cluster, label in np.ndindex(N + EXTRA, N):
        predicted = class_of_cluster[cluster]
        shares[label, predicted if predicted >= 0 else N] += 100 * counts[cluster, label] / counts[:, label].sum()
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in ax.texts}
    assert written == {(i, j): f"{share:.0f}" for (i, j), share in np.ndenumerate(shares) if share >= 0.5}
    drawn_pixels = panel_pixels(figure, pixels, ax)
    height, width = len(drawn_pixels) / N, drawn_pixels.shape[1] / (N + 1)
    # The corner of a cell, beside its number, is the darker the larger its share.
    corner = [
        [drawn_pixels[int((i + 0.15) * height), int((j + 0.15) * width)].sum() for j in range(N + 1)] for i in range(N)
    ]
    darkest = np.array(corner).argmin(axis=1)
    assert darkest.tolist() == shares.argmax(axis=1).tolist()


def a_picture():
    label = np.zeros((SIDE, SIDE), dtype=int)
    return Picture(0, torch.zeros(3, SIDE, SIDE), label, {"cluster": label, "linear": label})


def test_confusion_table__is_the_scored_matrix_with_names():
    counts = confusion()
    header, *rows = labelled_validation("", [a_picture()], counts, CLASSES).tables["confusion"]
    class_of_cluster = match_clusters(counts)
    scored = score(counts, class_of_cluster, False).confusion
    assert header[1:] == [*NAMES, "no class"]
    assert [row[0] for row in rows] == [*NAMES]
    values = np.array([[int(cell) for cell in row[1:]] for row in rows])
    assert (values[:, :-1] == scored.T).all()
    assert (values[:, -1] == counts[class_of_cluster < 0].sum(axis=0)).all()
    assert values.sum() == counts.sum()


def bars_of(ax):
    """By row's name, the bars' (width, colour) from top to bottom."""
    names = [text.get_text() for text in ax.get_yticklabels()]
    bars = {name: [] for name in names}
    for patch in sorted(ax.patches, key=lambda patch: patch.get_y()):
        middle = patch.get_y() + patch.get_height() / 2
        color = tuple(round(255 * part) for part in to_rgb(patch.get_facecolor()))
        bars[names[round(middle)]].append((patch.get_width(), color))
    return bars


def test_frequencies__bars_have_the_classes_shares_and_colours():
    counts = confusion()
    figure = labelled_validation("", [a_picture()], counts, CLASSES).figures["frequencies"]
    pixels = rendered(figure)
    ax = figure.axes[0]
    bars, total = bars_of(ax), counts.sum()
    grey = tuple(round(255 * part) for part in to_rgb(LABEL_COLOR))
    by_label, by_cluster, class_of_cluster = counts.sum(axis=0), counts.sum(axis=1), match_clusters(counts)
    for class_id, name in enumerate(SHOWN_NAMES):
        cluster = class_of_cluster.tolist().index(class_id)
        (labelled, label_color), (predicted, color) = bars.pop(name)
        assert labelled == pytest.approx(100 * by_label[class_id] / total)
        assert predicted == pytest.approx(100 * by_cluster[cluster] / total)
        assert label_color == grey
        assert color == tuple(CLASSES.palette[class_id])
        assert share_of(panel_pixels(figure, pixels, ax), color) > 0.001
    assert [*bars] == ["cluster 6 (no class)", "cluster 7 (no class)"], "the last rows"
    for cluster, ((predicted, color),) in zip((6, 7), bars.values(), strict=True):
        assert predicted == pytest.approx(100 * by_cluster[cluster] / total)
        assert color == VOID_COLOR
    first = [*bars_of(ax)][:N]
    assert first == [SHOWN_NAMES[i] for i in np.argsort(-by_label, kind="stable")]


def test_frequencies__without_labels_one_bar_a_cluster():
    figure = label_free_validation("", [a_picture()], np.array([10, 0, 30])).figures["frequencies"]
    bars = bars_of(figure.axes[0])
    colors = [tuple(color) for color in distinct_palette(3)]
    expected = zip((25, 0, 75), colors, strict=True)
    assert bars == {f"cluster {i}": [bar] for i, bar in enumerate(expected)}
