import math

import pytest
import torch

from eagle.evaluation.cue_purity import cue_purity


def test_cue_purity__right_parts_with_swapped_numbers_are_pure_within_images_only():
    label = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 1, 1]]])
    assert cue_purity(torch.tensor([[[0, 0, 1, 1]], [[0, 0, 1, 1]]]), label) == (100, 100)
    assert cue_purity(torch.tensor([[[0, 0, 1, 1]], [[1, 1, 0, 0]]]), label) == (100, 50)


def test_cue_purity__one_label_gives_the_share_of_the_most_frequent_class():
    """Image 0 has class 0 on 3 of 4 pixels, image 1 class 2 on all: (3 + 4) / 8 within, 4 / 8 over."""
    label = torch.tensor([[[0, 0, 0, 1]], [[2, 2, 2, 2]]])
    assert cue_purity(torch.zeros(2, 1, 4, dtype=torch.long), label) == (87.5, 50)


def test_cue_purity__void_pixels_do_not_count():
    cue, label = torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[-1, -1, 3, 0]]])
    assert cue_purity(cue, label) == (100, 100)
    assert all(math.isnan(value) for value in cue_purity(cue, torch.full_like(label, -1)))


@pytest.mark.parametrize("scale", [1, 3, 14])
def test_cue_purity__a_pixel_has_the_label_of_its_patch(scale):
    cue = torch.randint(0, 40, (2, 5, 7), generator=torch.Generator().manual_seed(0))
    label = cue.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    assert cue_purity(cue, label) == (100, 100)
