"""Single panels: the right colours for ids and values, and never blank."""

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from color_vision import as_seen
from eagle.data.labels import distinct_palette
from eagle.figures.panels import EIGENVECTOR_COLORS, EigenvectorPanel, ImagePanel, LabelPanel, resized_patches


def test_label_panel__png_holds_ids_and_shows_their_colours(tmp_path):
    ids = np.array([[0, 1, 2], [-1, 2, 2]])
    palette = distinct_palette(3)
    LabelPanel("eicue", "EiCue", ids, palette).write(tmp_path / "a.png", (20, 30))
    image = Image.open(tmp_path / "a.png")
    indices, colors = np.asarray(image), np.asarray(image.convert("RGB"))
    assert indices.shape == (20, 30)
    for (i, j), label in np.ndenumerate(ids):
        cell = np.s_[10 * i : 10 * (i + 1), 10 * j : 10 * (j + 1)]
        assert (indices[cell] == (255 if label < 0 else label)).all()
        assert (colors[cell] == (0 if label < 0 else palette[label])).all()


def test_label_panel__figures_show_the_same_colours_as_the_file(tmp_path):
    panel = LabelPanel("eicue", "EiCue", np.arange(12).reshape(3, 4) - 1, distinct_palette(11))
    panel.write(tmp_path / "a.png", (3, 4))
    assert np.array_equal(panel.colors(), np.asarray(Image.open(tmp_path / "a.png").convert("RGB")))


def test_eigenvector_panel__opposite_values_have_opposite_colours_and_zero_the_middle_one(tmp_path):
    values = np.array([[-0.2, 0.2, 0.0, 0.1, -0.1]])
    EigenvectorPanel("eigenvector_1", "eigenvector 1", values).write(tmp_path / "a.png", (10, 50))
    colors = np.asarray(Image.open(tmp_path / "a.png"))[5, 5::10].astype(int)
    wanted = np.round(np.array(EIGENVECTOR_COLORS([0.0, 1.0, 0.5, 0.75, 0.25]))[:, :3] * 255)
    assert np.abs(colors - wanted).max() <= 2


def test_eigenvector_panel__neither_an_outlier_nor_zeros_make_it_blank():
    values = np.tile([-0.01, 0.01], 200).reshape(20, 20)
    values[0, 0] = 5.0
    drawn = EigenvectorPanel("eigenvector_1", "eigenvector 1", values).colors()
    assert drawn.reshape(-1, 3).std(axis=0).max() > 40
    flat = EigenvectorPanel("eigenvector_1", "eigenvector 1", np.zeros((4, 4))).colors()
    assert (flat == flat[0, 0]).all()


@pytest.mark.parametrize("missing", ["none", "red", "green"])
def test_eigenvector_colours__signs_differ_for_colour_blind_readers(missing):
    colors = EIGENVECTOR_COLORS(np.linspace(0, 1, 65))[:, :3] * 255
    lab = as_seen(colors, missing)
    for distance, least in ((32, 35), (16, 20)):
        assert deltaE_ciede2000(lab[32 - distance], lab[32 + distance]) > least


def test_eigenvector_colours__steps_are_even_and_both_ends_equally_light():
    lab = rgb2lab(EIGENVECTOR_COLORS(np.linspace(0, 1, 65))[:, :3])
    steps = deltaE_ciede2000(lab[1:], lab[:-1])
    assert steps.max() < 1.5 * steps.min()
    assert abs(lab[0, 0] - lab[-1, 0]) < 5


def test_image_panel__is_the_image(tmp_path):
    gradient = np.tile(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (40, 1, 3))
    ImagePanel("image", "image", Image.fromarray(gradient)).write(tmp_path / "a.png", (20, 30))
    drawn = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.abs(drawn[10, 2:-2, 0].astype(int) - gradient[0, 5:-3:2, 0]).max() <= 4


@pytest.mark.parametrize("size", [(4, 6), (8, 12), (2, 3), (40, 66)])
def test_resized_patches__takes_the_value_under_each_pixels_middle(size):
    values = np.arange(24).reshape(4, 6)
    nearest = Image.fromarray(values.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(resized_patches(values, size), np.asarray(nearest))
