"""Grids of panels: exact label colours, aligned panels, and a legend of the classes shown."""

from itertools import combinations

import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from eagle.data.datasets.base import Classes
from eagle.data.labels import VOID_COLOR, colored, distinct_palette
from eagle.figures.drawing import rendered
from eagle.figures.grids import (
    EIGENVECTOR_COLORS,
    PANEL_INCHES,
    VOID_NAME,
    Picture,
    eigenvector_colors,
    panel_grid,
    segmentation_grid,
)
from miniatures import picture

CLASSES = Classes(("sky", "road", "car", "tree"), distinct_palette(4))


def row(size=(60, 40), seed=0, n_classes=4):
    """A photograph, an eigenvector of noise and a label map."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, n_classes, (5, 7))
    panels = {
        "image": Image.fromarray(picture(seed, size)),
        "eigenvector 1": eigenvector_colors(rng.normal(size=(4, 6))),
    }
    return panels | {"EiCue": colored(ids, distinct_palette(n_classes))}


def test_grid__maps_are_drawn_in_their_exact_colours_and_aligned():
    width = 47
    rows = [row(size, seed) for seed, size in enumerate([(300, 60), (40, 120), (50, 50)])]
    figure = panel_grid(rows, bar_below="eigenvector 1")
    pixels = rendered(figure, width / PANEL_INCHES)
    boxes = [axes.get_window_extent() for axes in figure.axes[:9]]
    for box, panel in zip(boxes, [panel for panels in rows for panel in panels.values()], strict=True):
        if isinstance(panel, np.ndarray):
            h, w, _ = panel.shape
            y = (len(pixels) - box.y1 + (np.arange(h) + 0.5) / h * box.height).astype(int)
            x = (box.x0 + (np.arange(w) + 0.5) / w * box.width).astype(int)
            assert np.array_equal(pixels[y[:, None], x], panel), "the middle of each patch"
    sizes = [(box.width, box.height) for box in boxes[::3]]
    expected = [(width, width / 5), (1.4 * width / 3, 1.4 * width), (width, width)]
    assert np.allclose(sizes, expected, atol=0.1), "a tall image is narrower than its column"
    for box, other in combinations(boxes, 2):
        assert box.x1 < other.x0 or other.x1 < box.x0 or box.y1 < other.y0 or other.y1 < box.y0


def test_eigenvector__opposite_values_have_opposite_colours_and_outliers_do_not_fade_it():
    colors = eigenvector_colors(np.array([[-0.2, 0.2, 0.0, 0.1, -0.1]])).astype(int)[0]
    wanted = np.round(np.array(EIGENVECTOR_COLORS([0.0, 1.0, 0.5, 0.75, 0.25]))[:, :3] * 255)
    assert np.abs(colors - wanted).max() <= 2
    values = np.tile([-0.01, 0.01], 200).reshape(20, 20)
    values[0, 0] = 5.0
    assert eigenvector_colors(values).reshape(-1, 3).std(axis=0).max() > 40
    assert len(np.unique(eigenvector_colors(np.zeros((4, 4))).reshape(-1, 3), axis=0)) == 1


def test_segmentation_grid__panels_and_legend_agree():
    stripes = np.repeat([0, 1, 2, -1], 8)[None].repeat(32, axis=0)
    clusters = np.repeat([4, 3, 3, 0], 8)[None].repeat(32, axis=0)
    class_of_cluster = np.array([0, 1, 2, 1, -1])
    shown = Picture(torch.zeros(3, 32, 32), stripes, {"cluster": clusters})
    figure = segmentation_grid([shown], {"cluster": class_of_cluster}, CLASSES, title="After 5 steps")
    pixels = rendered(figure)
    assert [ax.get_title() for ax in figure.axes] == ["image", "label", "cluster"]
    (legend,) = figure.legends
    colors = [tuple(round(255 * part) for part in to_rgb(patch.get_facecolor())) for patch in legend.get_patches()]
    explained = dict(zip([text.get_text() for text in legend.get_texts()], colors, strict=True))
    palette = map(tuple, CLASSES.palette.tolist())
    assert explained == dict(zip(("sky", "road", "car"), palette, strict=False)) | {VOID_NAME: VOID_COLOR}
    for ax, ids in zip(figure.axes[1:], (stripes, class_of_cluster[clusters]), strict=True):
        box = ax.get_window_extent()
        middle = pixels[round(len(pixels) - (box.y0 + box.y1) / 2)]
        places = (box.x0 + (np.arange(4) + 0.5) / 4 * box.width).astype(int)
        assert np.array_equal(middle[places], colored(ids[:1, 4::8], CLASSES.palette)[0])
