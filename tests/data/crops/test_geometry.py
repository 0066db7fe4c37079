import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from eagle.data.crops.geometry import five_boxes, random_boxes
from eagle.errors import ConfigError

SIZES = [(60, 48), (61, 47), (2048, 1024), (7, 5), (1, 1), (501, 334), (3, 640)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("ratio", [0.5, 0.3, 0.29, 0.75, 1.0])
def test_five_boxes__same_pixels_as_torchvision_and_as_slicing(width, height, ratio):
    h, w = int(height * ratio), int(width * ratio)
    if 0 in (h, w):
        with pytest.raises(ConfigError, match="crop_ratio"):
            five_boxes(width, height, ratio)
        return
    pixels = np.arange(width * height, dtype=np.int32).reshape(height, width)
    image = Image.fromarray(pixels)
    crops = [np.asarray(image.crop(box)) for box in five_boxes(width, height, ratio)]
    for crop, theirs in zip(crops, F.five_crop(image, [h, w]), strict=True):
        np.testing.assert_array_equal(crop, np.asarray(theirs))
    sliced = [pixels[:h, :w], pixels[:h, width - w :], pixels[height - h :, :w], pixels[height - h :, width - w :]]
    for crop, expected in zip(crops, sliced, strict=False):
        np.testing.assert_array_equal(crop, expected)
    top, left = divmod(int(crops[4][0, 0]), width)
    assert abs(top - (height - h) / 2) <= 0.5
    assert abs(left - (width - w) / 2) <= 0.5


def test_random_boxes__inside_of_one_size_and_everywhere():
    boxes = random_boxes(9, 7, 0.5, 2000, np.random.default_rng(0))
    assert {(b.right - b.left, b.bottom - b.top) for b in boxes} == {(4, 3)}
    assert {(b.left, b.top) for b in boxes} == {(x, y) for x in range(6) for y in range(5)}


def test_random_boxes__whole_image():
    assert random_boxes(9, 7, 1.0, 2, np.random.default_rng(0)) == [(0, 0, 9, 7)] * 2
