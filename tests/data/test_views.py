from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.views import Draw, EvaluationViews, Photometric, TrainingViews, normalize, resize_and_crop, unnormalize


class Ramp(SegmentationDataset):
    """Images whose red channel equals the label, which reveals misalignment."""

    def __init__(self):
        files = [Path(str(index)) for index in range(6)]
        super().__init__(Classes(tuple(map(str, range(200))), np.zeros((200, 3), np.uint8)), files, files)
        self.ids = np.random.default_rng(0).integers(0, 200, (45, 64)).astype(np.int32)

    def image(self, index):
        return Image.fromarray(np.repeat(self.ids[:, :, None], 3, axis=2).astype(np.uint8))

    def class_ids(self, path):
        return self.ids


def test_views__image_and_label_stay_aligned():
    sample = EvaluationViews(Ramp(), 32)[0]
    red = (unnormalize(sample["img"])[0] * 255).round().long()
    assert sample["img"].shape == (3, 32, 32)
    assert torch.equal(red, sample["label"])


def test_resize_and_crop__nearest_short_side_then_centre():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8))
    resized = image.resize((32 * 80 // 50, 32), Image.Resampling.NEAREST)
    left = round((resized.width - 32) / 2)
    assert np.array_equal(np.asarray(resize_and_crop(image, 32)), np.asarray(resized)[:, left : left + 32])


def test_training_views__blur_half_of_the_images_and_nothing_else():
    views = TrainingViews(Ramp(), 32, "released")
    samples = [views[Draw(0, seed)] for seed in range(60)]
    blurred = [not torch.equal(s["img"], s["img_aug"]) for s in samples]
    assert 15 < sum(blurred) < 45
    assert all(torch.equal(samples[0]["img"], s["img"]) for s in samples)


def test_training_views__with_a_number_of_views_every_draw_is_one_of_them():
    views = TrainingViews(Ramp(), 32, "released", n_views=3)
    samples = [views[Draw(1, seed)] for seed in range(2**31 - 30, 2**31)]
    assert {int(sample["view"]) for sample in samples} == {3, 4, 5}
    for sample in samples:
        twin = next(s for s in samples if s["view"] == sample["view"])
        assert torch.equal(sample["img_aug"], twin["img_aug"])
    others = [int(views[Draw(0, seed)]["view"]) for seed in range(30)]
    assert set(others) == {0, 1, 2}


def test_training_views__blurring_before_or_after_normalising_is_the_same():
    rgb = torch.rand(3, 16, 16)
    blur = lambda x: TF.gaussian_blur(x, [3, 3], [1.1, 1.1])  # noqa: E731
    assert torch.allclose(normalize(blur(rgb)), blur(normalize(rgb)), atol=1e-5)


def test_photometric__seed_determines_result_and_global_state_is_untouched():
    rgb = torch.rand(3, 16, 16)
    transform = Photometric("paper")
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = transform(rgb, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(transform(rgb, 5), first)
    assert any(not torch.equal(transform(rgb, seed), first) for seed in range(6, 12))
