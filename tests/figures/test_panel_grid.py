"""Figures of panels: every panel is there pixel by pixel, every class in the legend, nothing runs off the page."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from eagle.data.class_map import ClassMap
from eagle.data.datasets.base import Classes
from eagle.data.palette import distinct_palette
from eagle.figures.panel_grid import PanelRow, draw_panel_grid, panel_grid
from eagle.inference.masks import Legend
from eagle.visualization.decomposition import Decomposition
from eagle.visualization.eigen_panels import class_colors, eigen_note, eigen_panels
from miniatures import picture

CLASSES = Classes(("sky", "road", "car", "tree"), distinct_palette(4))
NOTE = eigen_note("A Laplacian.", None)


def legend_of(assignment):
    return Legend(ClassMap(CLASSES, {"cluster": assignment}), "cluster", len(assignment), None)


def row(name="one", size=(60, 40), ids=None, seed=0, legend=None):
    """A row with four eigenvectors' worth of noise; final clusters where ``ids`` are given."""
    rng = np.random.default_rng(seed)
    decomposition = Decomposition(rng.normal(size=(3, 4, 6)), rng.integers(0, 5, (4, 6)), rng.integers(0, 5, (4, 6)))
    panels = eigen_panels(Image.fromarray(picture(seed, size)), decomposition, ids, legend)
    return PanelRow(name, "5 labels", size[1] / size[0], panels)


def drawn(path, *arguments):
    """The figure, and the pixels of its file."""
    draw_panel_grid(path, *arguments)
    return panel_grid(*arguments), np.asarray(Image.open(path).convert("RGB"))


def at_their_places(figure, pixels):
    """The parts of a page that its panels should cover, row by row from the left."""
    for image in figure.images:
        height, width = image.get_array().shape[:2]
        bottom = pixels.shape[0] - image.oy
        yield pixels[bottom - height : bottom, image.ox : image.ox + width]


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


def test_grid__every_panel_is_on_the_page_pixel_by_pixel_and_not_blank(tmp_path):
    ids = np.random.default_rng(0).integers(-1, 4, (40, 60))
    legend = legend_of([0, 1, 2, 3])
    rows = [row(name, size, np.resize(ids, size[::-1]), seed, legend) for seed, (name, size) in enumerate(
        (("one", (60, 40)), ("upright", (40, 120)), ("square", (50, 50)))
    )]  # fmt: skip
    figure, pixels = drawn(tmp_path / "grid.png", rows, class_colors([r.panels for r in rows], legend), NOTE, 90)
    places = list(at_their_places(figure, pixels))
    for shown, panel in zip(places, [panel for one in rows for panel in one.panels], strict=True):
        assert np.array_equal(shown, panel.rgb(shown.shape[:2]))
        assert shown.reshape(-1, 3).std(axis=0).max() > 10
    widths = [shown.shape[1] for shown in places]
    assert widths[:7] == [90] * 7, "a column's width"
    assert widths[7:14] == [42] * 7, "narrower, so that a tall image does not fill the page"


def test_grid__panels_are_aligned_and_apart(tmp_path):
    figure = panel_grid([row(), row("two", (50, 50))], None, NOTE, 80)
    boxes = [(image.ox, image.oy, *np.asarray(image.get_array()).shape[1::-1]) for image in figure.images]
    assert len({left for left, *_ in boxes}) == 6
    assert len({bottom for _, bottom, *_ in boxes}) == 2
    for (left, bottom, width, height), (left2, bottom2, width2, height2) in combinations(boxes, 2):
        apart = left + width < left2 or left2 + width2 < left or bottom + height < bottom2 or bottom2 + height2 < bottom
        assert apart


def test_grid__titles_are_the_papers(tmp_path):
    legend = legend_of([0])
    figure = panel_grid([row(ids=np.zeros((4, 6), int), legend=legend)], None, NOTE, 80)
    words = [text.get_text() for text in figure.texts]
    titles = ["image", "eigenvector 1", "eigenvector 2", "eigenvector 3", "EiCue", "k-means of keys", "final clusters"]
    assert words[: len(titles)] == titles
    assert {"one", "5 labels"} <= set(words)
    assert NOTE.replace("\n", " ") == words[-1].replace("\n", " ")


@pytest.mark.parametrize("shown", [[0], [1, 3], [-1, 0, 1, 2, 3], [-1]])
def test_legend__has_the_classes_that_are_shown_and_no_others(tmp_path, shown):
    legend = legend_of([0, 1, 2, 3, -1])
    rows = [row(seed=seed, ids=np.full((4, 6), class_id), legend=legend) for seed, class_id in enumerate(shown)]
    figure, pixels = drawn(tmp_path / "grid.png", rows, class_colors([r.panels for r in rows], legend), NOTE, 120)
    figure.draw_without_rendering()
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
    figure = panel_grid(rows, class_colors([r.panels for r in rows], legend), NOTE, 120)
    figure.draw_without_rendering()
    page = figure.bbox
    inside = [*figure.legends, *figure.texts, *figure.axes[0].get_xticklabels()]
    boxes = [artist.get_window_extent() for artist in inside]
    for box in boxes:
        assert page.x0 <= box.x0 <= box.x1 <= page.x1
        assert page.y0 <= box.y0 <= box.y1 <= page.y1
    for (first, box), (second, other) in combinations(zip(inside, boxes, strict=True), 2):
        overlap = (
            min(box.x1, other.x1) - max(box.x0, other.x0) > 1 and min(box.y1, other.y1) - max(box.y0, other.y0) > 1
        )
        assert not overlap, (first, second)


def test_colour_bar__runs_from_the_negative_colour_to_the_positive_one(tmp_path):
    from eagle.figures.panels import EIGENVECTOR_COLORS

    figure, pixels = drawn(tmp_path / "grid.png", [row()], None, NOTE, 160)
    (ax,) = figure.axes
    box = ax.get_window_extent()
    line = pixels[round(pixels.shape[0] - (box.y0 + box.y1) / 2)]
    for place in (0.02, 0.3, 0.5, 0.7, 0.98):
        color = np.array(EIGENVECTOR_COLORS(place))[:3] * 255
        assert np.abs(line[round(box.x0 + place * box.width)] - color).max() < 12
    assert [label.get_text() for label in ax.get_xticklabels()] == ["negative", "0", "positive"]


def test_names__are_no_formulas_and_need_no_encoding(tmp_path, recwarn):
    rows = [row(name) for name in ("a_$x^2$_b", "bytes\udcff", "中文")]
    words = [text.get_text() for text in panel_grid(rows[:2], None, NOTE, 240).texts]
    assert {"a_$x^2$_b", "bytes\\udcff"} <= set(words)
    draw_panel_grid(tmp_path / "grid.png", rows, None, NOTE, 240)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
