import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from eagle.data.datasets.base import Classes
from eagle.data.labels import colored, distinct_palette
from eagle.evaluation.picture import Picture
from eagle.figures.confusion import confusion_figure, draw_confusion
from eagle.figures.rendering import rendered
from eagle.figures.segmentation_grid import draw_segmentation_grid

CLASSES = Classes(("sky", "road", "car"), distinct_palette(3))


def share_of_color(path, color):
    """Share of a picture's pixels within rounding of a colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return (np.abs(pixels - np.array(color)).max(axis=2) <= 2).mean()


def test_colored__ids_get_their_colours_and_void_is_black():
    ids = np.array([[0, 1], [2, -1]])
    assert colored(ids, CLASSES.palette).reshape(4, 3).tolist() == [*CLASSES.palette.tolist(), [0, 0, 0]]


def test_grid__every_class_of_labels_and_predictions_is_drawn_in_its_colour(tmp_path):
    label = np.repeat([0, 1, 2, -1], 8)[None].repeat(32, axis=0)
    picture = Picture(0, torch.zeros(3, 32, 32), label, {"cluster": np.full((32, 32), 3)})
    draw_segmentation_grid(tmp_path / "grid.png", [picture], {"cluster": np.array([0, 1, 2, 1])}, CLASSES)
    shares = [share_of_color(tmp_path / "grid.png", color) for color in CLASSES.palette]
    assert min(shares) > 0.01
    assert shares[1] > 2 * shares[0], "cluster 3 is drawn as its class, road"


def test_grid__unmatched_clusters_are_void(tmp_path):
    picture = Picture(0, torch.zeros(3, 32, 32), np.zeros((32, 32), int), {"cluster": np.full((32, 32), 3)})
    draw_segmentation_grid(tmp_path / "grid.png", [picture], {"cluster": np.array([0, 1, 2, -1])}, CLASSES)
    assert share_of_color(tmp_path / "grid.png", (0, 0, 0)) > 0.1


def numbered_classes(n):
    return Classes(tuple(f"c{i}" for i in range(n)), distinct_palette(n))


@pytest.mark.parametrize("n", [1, 3, 30])
def test_confusion__a_row_shows_where_a_labels_pixels_went(n):
    confusion = np.random.default_rng(n).integers(1, 50, (n, n))
    axes = confusion_figure(confusion, numbered_classes(n), "title").axes[0]
    shown = np.asarray(axes.images[0].get_array())
    for label in range(n):
        total = sum(confusion[predicted, label] for predicted in range(n))
        expected = [100 * confusion[predicted, label] / total for predicted in range(n)]
        assert shown[label].tolist() == pytest.approx(expected)
        written = {text.get_position()[0]: text.get_text() for text in axes.texts if text.get_position()[1] == label}
        assert written == {column: f"{share:.0f}" for column, share in enumerate(expected) if share >= 0.5}
    for axis in (axes.xaxis, axes.yaxis):
        assert [tick.get_text() for tick in axis.get_ticklabels()] == [f"c{i}" for i in range(n)]


@pytest.mark.parametrize("n", [1, 3, 30])
def test_confusion__full_cells_are_drawn_dark(tmp_path, n):
    darkest = np.array(colormaps["Blues"](1.0)[:3]) * 255
    for name, confusion in (("right", 5 * np.eye(n, dtype=int)), ("empty", np.zeros((n, n), dtype=int))):
        draw_confusion(tmp_path / f"{name}.png", confusion, numbered_classes(n), "title")
    dark = {name: share_of_color(tmp_path / f"{name}.png", darkest) for name in ("right", "empty")}
    assert dark["right"] > dark["empty"] + 0.1 / n


def test_figures__leave_nothing_behind_when_writing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *_args, **_kwargs: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        draw_confusion(tmp_path / "confusion.png", np.eye(2, dtype=int), Classes(("a", "b"), distinct_palette(2)), "t")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n", [2, 10, 27, 60])
def test_confusion__nothing_is_cut_off_at_the_page_edges(n):
    page = rendered(confusion_figure(np.eye(n, dtype=int), numbered_classes(n), "cluster+crf: 60.7 mIoU"))
    for edge in (page[:2], page[-2:], page[:, :2], page[:, -2:]):
        assert (edge == 255).all()
