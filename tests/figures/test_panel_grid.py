"""Figures of panels: exact label colours, aligned panels, a legend of the classes shown, and all of it on the page."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from PIL import Image

from eagle.data.datasets.base import Classes
from eagle.data.labels import ClassMap, distinct_palette
from eagle.figures.panel_grid import PANEL_INCHES, PanelRow, panel_grid
from eagle.figures.panels import EIGENVECTOR_COLORS, LabelPanel
from eagle.figures.rendering import rendered
from eagle.inference.masks import Legend
from eagle.visualization.decomposition import Decomposition
from eagle.visualization.eigen_panels import clusters_legend, eigen_note, eigen_panels
from miniatures import picture

CLASSES = Classes(("sky", "road", "car", "tree"), distinct_palette(4))
NOTE = eigen_note("A Laplacian.", None)


def legend_of(assignment):
    return Legend(ClassMap(CLASSES, {"cluster": assignment}), "cluster", len(assignment), None)


def row(name="one", size=(60, 40), ids=None, seed=0, legend=None):
    """A row of noise with three eigenvectors; final clusters where ``ids`` are given."""
    rng = np.random.default_rng(seed)
    decomposition = Decomposition(rng.normal(size=(3, 4, 6)), rng.integers(0, 5, (4, 6)), rng.integers(0, 5, (4, 6)))
    panels = eigen_panels(Image.fromarray(picture(seed, size)), decomposition, ids, legend)
    return PanelRow(panels, name, "5 labels")


def drawn(rows, legend=None, width=120):
    """The figure and its pixels, with panels so many pixels wide."""
    figure = panel_grid(rows, clusters_legend(rows, legend), "final clusters", note=NOTE)
    return figure, rendered(figure, width / PANEL_INCHES)


def panel_boxes(figure, rows):
    """(left, bottom, right, top) in pixels of each panel, row by row."""
    axes = figure.axes[: len(rows) * len(rows[0].panels)]
    return [tuple(ax.get_window_extent().extents) for ax in axes]


def boxes_of(artists):
    return [artist.get_window_extent() for artist in artists]


def test_panels__are_the_papers_in_its_order():
    legend, ids = legend_of([0, 1, 2, 3]), np.arange(24).reshape(4, 6) % 4
    decomposition = Decomposition(
        np.random.default_rng(0).normal(size=(2, 4, 6)), np.full((4, 6), 1), np.full((4, 6), 2)
    )
    image, first, second, cue, kmeans, clusters = eigen_panels(Image.new("RGB", (6, 4)), decomposition, ids, legend)
    assert image.kind == "image"
    assert first.values is not second.values
    assert np.array_equal([first.values, second.values], decomposition.eigenvectors)
    assert (cue.ids is decomposition.cue, kmeans.ids is decomposition.kmeans) == (True, True)
    assert np.array_equal(cue.palette, kmeans.palette), "one colour, one label"
    assert (clusters.ids is ids, clusters.palette is CLASSES.palette) == (True, True)


@pytest.mark.parametrize("width", [47, 120, 240])
def test_grid__labels_are_drawn_in_their_exact_colours_and_other_panels_too(width):
    legend = legend_of([0, 1, 2, 3])
    ids = np.random.default_rng(0).integers(-1, 4, (5, 7))
    sizes = {"wide": (300, 60), "upright": (40, 120), "square": (50, 50)}
    rows = [row(name, size, ids, seed, legend) for seed, (name, size) in enumerate(sizes.items())]
    figure, pixels = drawn(rows, legend, width)
    for (left, bottom, right, top), panel in zip(
        panel_boxes(figure, rows), [p for r in rows for p in r.panels], strict=True
    ):
        colors = panel.colors()
        if not panel.smooth:
            h, w, _ = colors.shape
            y = (len(pixels) - top + (np.arange(h) + 0.5) / h * (top - bottom)).astype(int)
            x = (left + (np.arange(w) + 0.5) / w * (right - left)).astype(int)
            assert np.array_equal(pixels[y[:, None], x], colors), "the middle of each patch"
        inside = pixels[int(len(pixels) - top) + 2 : int(len(pixels) - bottom) - 1, int(left) + 2 : int(right) - 1]
        assert inside.reshape(-1, 3).std(axis=0).max() > 10, "not blank"
        if isinstance(panel, LabelPanel):
            shown = set(map(tuple, inside.reshape(-1, 3)))
            assert shown <= set(map(tuple, colors.reshape(-1, 3))), "no colours between those of labels"


def test_grid__panels_keep_their_aspect_and_a_tall_image_does_not_fill_the_page():
    rows = [row("wide", (60, 40)), row("upright", (40, 120)), row("flat", (600, 20))]
    figure, _ = drawn(rows, width=90)
    sizes = [
        (right - left, top - bottom) for left, bottom, right, top in panel_boxes(figure, rows)[:: len(rows[0].panels)]
    ]
    assert np.allclose(sizes, [(90, 60), (42, 126), (90, 3)], atol=0.1)


def test_grid__panels_are_aligned_and_apart():
    rows = [row(), row("two", (50, 50))]
    figure, _ = drawn(rows, width=80)
    boxes = panel_boxes(figure, rows)
    assert len({round(left, 3) for left, *_ in boxes}) == 6
    assert len({round(bottom, 3) for _, bottom, *_ in boxes}) == 2
    for (left, bottom, right, top), (left2, bottom2, right2, top2) in combinations(boxes, 2):
        assert right < left2 or right2 < left or top < bottom2 or top2 < bottom


def test_grid__titles_are_the_papers():
    legend = legend_of([0])
    rows = [row(ids=np.zeros((4, 6), int), legend=legend), row("two", ids=np.zeros((4, 6), int), legend=legend)]
    figure, _ = drawn(rows, legend)
    titles = ["image", "eigenvector 1", "eigenvector 2", "eigenvector 3", "EiCue", "k-means of keys", "final clusters"]
    assert [ax.get_title() for ax in figure.axes[:14]] == titles + [""] * 7
    assert [ax.get_ylabel() for ax in figure.axes[:14:7]] == ["one\n5 labels", "two\n5 labels"]
    assert figure.texts[-1].get_text().replace("\n", " ") == NOTE


@pytest.mark.parametrize("shown", [[0], [1, 3], [-1, 0, 1, 2, 3], [-1]])
def test_legend__has_the_classes_that_are_shown_and_no_others(shown):
    legend = legend_of([0, 1, 2, 3, -1])
    rows = [row(seed=seed, ids=np.full((4, 6), class_id), legend=legend) for seed, class_id in enumerate(shown)]
    figure, pixels = drawn(rows, legend)
    (box,) = figure.legends
    names = {-1: "no class", **dict(enumerate(CLASSES.names))}
    ordered = sorted(shown, key=lambda class_id: class_id % 100)
    assert [text.get_text() for text in box.get_texts()] == [names[class_id] for class_id in ordered]
    assert box.get_title().get_text() == "final clusters"
    for class_id, patch in zip(ordered, box.get_patches(), strict=True):
        color = (0, 0, 0) if class_id < 0 else CLASSES.palette[class_id]
        x, y = np.mean(patch.get_window_extent().get_points(), axis=0)
        assert (pixels[round(pixels.shape[0] - y), round(x)] == color).all(), "beside its name, in the file"


@pytest.mark.parametrize("n", [1, 12, 27])
def test_page__everything_fits_and_nothing_overlaps(n):
    names = tuple(f"a class with the long name {i}" for i in range(n))
    legend = Legend(ClassMap(Classes(names, distinct_palette(n)), {"cluster": list(range(n))}), "cluster", n, None)
    rows = [
        row("n" * 200, ids=np.arange(30).reshape(5, 6) % n, legend=legend),
        row("flat", (300, 20), np.zeros((2, 2), int), 1, legend),
    ]
    figure, _ = drawn(rows, legend)
    page = figure.bbox
    grid, bar = figure.axes[:-1], figure.axes[-1]
    names, titles = [ax.yaxis.label for ax in grid if ax.get_ylabel()], [ax.title for ax in grid if ax.get_title()]
    assert (len(names), len(titles)) == (2, 7)
    inside = [*figure.legends, *figure.texts, *names, *titles, *bar.get_xticklabels(), *grid]
    boxes = boxes_of(inside)
    for box in boxes:
        assert page.x0 <= box.x0 <= box.x1 <= page.x1
        assert page.y0 <= box.y0 <= box.y1 <= page.y1
    for (first, box), (second, other) in combinations(zip(inside, boxes, strict=True), 2):
        overlap = (
            min(box.x1, other.x1) - max(box.x0, other.x0) > 1 and min(box.y1, other.y1) - max(box.y0, other.y0) > 1
        )
        assert not overlap, (first, second)


def test_grid__many_columns_fit():
    decomposition = Decomposition(np.random.default_rng(0).normal(size=(30, 4, 6)), *2 * [np.zeros((4, 6), int)])
    rows = [PanelRow(eigen_panels(Image.new("RGB", (60, 40)), decomposition, None, None), "one", "1 label")]
    figure, pixels = drawn(rows, width=60)
    boxes = panel_boxes(figure, rows)
    assert np.allclose([right - left for left, _, right, _ in boxes], 60, atol=0.1)
    assert len(boxes) == 33
    assert max(right for *_, right, _ in boxes) <= pixels.shape[1]
    for first, second in pairwise(boxes_of(ax.title for ax in figure.axes[:33])):
        assert first.x1 < second.x0


def test_colour_bar__runs_from_the_negative_colour_to_the_positive_one():
    figure, pixels = drawn([row()], width=160)
    ax = figure.axes[-1]
    box = ax.get_window_extent()
    line = pixels[round(pixels.shape[0] - (box.y0 + box.y1) / 2)]
    for place in (0.02, 0.3, 0.5, 0.7, 0.98):
        color = np.array(EIGENVECTOR_COLORS(place))[:3] * 255
        assert np.abs(line[round(box.x0 + place * box.width)] - color).max() < 12
    assert [label.get_text() for label in ax.get_xticklabels()] == ["negative", "0", "positive"]


def test_names__are_no_formulas_and_need_no_encoding(recwarn):
    rows = [row(name) for name in ("a_$x^2$_b", "bytes\udcff", "中文")]
    figure, _ = drawn(rows, width=240)
    names = [ax.get_ylabel().split("\n")[0] for ax in figure.axes if ax.get_ylabel()]
    assert names == [r"a_\$x^2\$_b", "bytes\\udcff", "中文"]
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
