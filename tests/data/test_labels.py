"""Palettes, and label maps as PNG files."""

import numpy as np
import pytest
from PIL import Image

from eagle.data.images import read_label
from eagle.data.labels import VOID_COLOR, colored_image, distinct_palette, write_ids


@pytest.mark.parametrize("n", [1, 11, 27])
def test_palette__colours_and_void_differ(n):
    colors = np.array([*distinct_palette(n), VOID_COLOR]).astype(int)
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(n + 1, dtype=int)
    assert distances.min() > 30


def test_palette__longer_starts_with_shorter():
    longest = distinct_palette(40)
    assert len(np.unique(longest, axis=0)) == 40
    for n in (0, 1, 11):
        assert np.array_equal(distinct_palette(n), longest[:n])


@pytest.mark.parametrize(("n_ids", "mode", "none"), [(2, "L", 255), (255, "L", 255), (256, "I;16", 65535)])
def test_write_ids__every_id_and_void_survive_the_round_trip(tmp_path, n_ids, mode, none):
    ids = np.arange(-1, n_ids).reshape(1, -1)
    write_ids(tmp_path / "a.png", ids, n_ids)
    assert Image.open(tmp_path / "a.png").mode == mode
    assert read_label(tmp_path / "a.png").tolist() == [[none, *range(n_ids)]]
    write_ids(tmp_path / "b.png", ids[:, 1:2], n_ids)
    assert Image.open(tmp_path / "b.png").mode == mode, "for any ids in the image"


@pytest.mark.parametrize(("n_ids", "mode"), [(255, "P"), (256, "RGB")])
def test_colored_image__viewers_see_the_palette(tmp_path, n_ids, mode):
    ids = np.arange(-1, n_ids).reshape(1, -1)
    palette = np.random.default_rng(0).integers(0, 256, (n_ids, 3), dtype=np.uint8)
    colored_image(ids, palette).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    assert image.mode == mode
    assert np.asarray(image.convert("RGB"))[0].tolist() == [[0, 0, 0], *palette.tolist()]
