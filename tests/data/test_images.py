"""Every kind of picture file becomes the right pixels, or one line that names it."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from eagle.data.images import image_files, is_turned, read_image, read_label, read_photograph, read_size
from eagle.errors import DataError
from miniatures import label_map, picture

RGB = picture(3)
GRAY = RGB[:, :, 0]


def saved(path, image, **options):
    image.save(path, **options)
    return path


def pixels(path):
    return np.asarray(read_image(path)).astype(int)


def test_read_image__alpha_is_dropped_and_grey_repeated(tmp_path):
    rgba = np.dstack([RGB, GRAY])
    assert np.array_equal(pixels(saved(tmp_path / "a.png", Image.fromarray(rgba))), RGB)
    assert np.array_equal(pixels(saved(tmp_path / "g.png", Image.fromarray(GRAY))), np.dstack([GRAY] * 3))
    gray_alpha = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(RGB[:, :, 1])])
    assert np.array_equal(pixels(saved(tmp_path / "la.png", gray_alpha)), np.dstack([GRAY] * 3))


def test_read_image__16_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    assert pixels(saved(tmp_path / "x.png", Image.fromarray(values)))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 2, 6])
def test_orientation__file_kinds_agree_on_stored_and_on_upright_pixels(tmp_path, suffix, orientation):
    """Pillow turns a TIFF when it loads it, and no other file."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"turned.{suffix}", Image.fromarray(RGB), exif=exif, **options)
    upright = {1: RGB, 2: RGB[:, ::-1], 6: np.rot90(RGB, -1)}[orientation]
    assert np.array_equal(pixels(path), RGB)
    assert np.array_equal(np.asarray(read_photograph(path)), upright)
    assert is_turned(path) == (orientation != 1)
    if suffix != "webp":
        label = saved(tmp_path / f"label.{suffix}", Image.fromarray(GRAY), exif=exif)
        assert np.array_equal(read_label(label), GRAY)


def test_read_image__of_any_size_but_what_would_fill_the_memory(tmp_path):
    assert pixels(saved(tmp_path / "one.png", Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]
    assert read_image(saved(tmp_path / "large.png", Image.new("1", (12000, 9000)))).size == (12000, 9000)
    with pytest.raises(DataError, match=r"bomb\.png: too many pixels"):
        read_image(saved(tmp_path / "bomb.png", Image.new("1", (20000, 20000))))
    with pytest.raises(DataError, match=r"strip\.png: 101×1 pixels are too narrow"):
        read_image(saved(tmp_path / "strip.png", Image.new("RGB", (101, 1))))


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", encoded("JPEG")[:-40], encoded("EPS")],
    ids=["empty", "cut JPEG", "EPS, which would start Ghostscript"],
)
def test_read_image__what_is_no_picture(tmp_path, content):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as an image (")
    assert "\n" not in str(caught.value)


def test_read_image__folders_pipes_and_dead_links_do_not_hang(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    for name, message in (("folder", "not a regular file"), ("pipe", "not a regular file"), ("link", "no such file")):
        with pytest.raises(DataError, match=rf"{name}\.jpg: {message}"):
            read_image(tmp_path / f"{name}.jpg")


def test_read_label__ids_of_every_lossless_form(tmp_path):
    ids = label_map(0, (0, 1, 7, 255))
    palette = Image.fromarray(ids, "P")
    palette.putpalette(list(range(256)) * 3)
    forms = {"l.png": Image.fromarray(ids), "p.png": palette, "i.png": Image.fromarray(ids.astype(np.uint16))}
    for name, image in forms.items():
        label = read_label(saved(tmp_path / name, image))
        assert label.dtype == np.int32
        assert np.array_equal(label, ids), name


def test_read_label__jpeg_and_colours_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"l\.jpg: JPEG changes the ids"):
        read_label(saved(tmp_path / "l.jpg", Image.fromarray(GRAY)))
    with pytest.raises(DataError, match=r"l\.png: a label map has one channel"):
        read_label(saved(tmp_path / "l.png", Image.fromarray(RGB)))


def test_image_files__hidden_files_are_none(tmp_path):
    for name in ("a.jpg", "._a.jpg", ".b-123.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg"]


def damaged(content, rng):
    """Bytes flipped, cut off or inserted at random places."""
    data = bytearray(content)
    place = int(rng.integers(len(data)))
    match rng.integers(4):
        case 0:
            data[place] ^= int(rng.integers(1, 256))
        case 1:
            del data[place:]
        case 2:
            data[place:place] = rng.bytes(int(rng.integers(1, 64)))
        case _:
            data[place : place + 16] = rng.bytes(16)
    return bytes(data)


@pytest.mark.parametrize("n", [150, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_fuzz__damaged_files_give_a_picture_or_one_line(tmp_path, kind, n):
    rng = np.random.default_rng(n)
    whole = encoded(kind)
    lines = []
    for _ in range(n):
        path = tmp_path / "x.jpg"
        path.write_bytes(damaged(whole, rng))
        for read in (read_image, read_label, read_size):
            try:
                read(path)
            except DataError as error:
                lines.append(str(error))
    assert len(lines) > n // 20
    assert [line for line in lines if not line.startswith(f"{path}: ") or "\n" in line] == []
