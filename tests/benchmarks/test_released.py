"""The benchmark's released side computes the released losses; different computations are not timed."""

import pytest
import torch

from conftest import recorded
from eagle.errors import EagleError
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle_benchmarks import released
from eagle_benchmarks.comparisons import PARTS, Case, check, sides, smooth_pictures
from eagle_benchmarks.released import Released

SIDE = 112


@pytest.fixture
def case(make_config):
    """A tiny model with two smooth pictures, the first one changed."""
    torch.manual_seed(0)
    img = smooth_pictures(2, SIDE) * 4 - 2
    img_aug = img.clone()
    img_aug[0] = img_aug[0] * 0.9
    batch = {
        "img": img, "img_aug": img_aug, "label": torch.randint(-1, 5, (2, SIDE, SIDE)),
        "index": torch.arange(2), "view": torch.arange(2), "changed": torch.tensor([True, False]),
    }  # fmt: skip
    return Case(LitUnsupervisedSegmenter(5, make_config(dim=64)).train(), batch)


def test_released__losses_of_the_recorded_step(golden, golden_segmenter, golden_batch):
    segmenter, data = golden_segmenter("cocostuff").eval(), golden.tensors("i_stepB_nodropout_cocostuff")
    terms = Released(segmenter).losses(golden_batch, segmenter.cfg.step_schedulers, **recorded(data, "s0."))
    assert {f"s0.log.{name}" for name in terms} == {k for k in data if k.startswith("s0.log.loss/")}
    for name, value in terms.items():
        assert float(value.detach()) == pytest.approx(float(data[f"s0.log.{name}"]), rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("name", [name for name in PARTS if name != "evaluation"])
def test_check__both_sides_compute_the_same(case, name):
    check(name, case)
    for run in sides(name, case).values():
        run()


@pytest.mark.parametrize("name", ["step", "cached", "bf16"])
def test_check__different_losses_are_refused(case, name, monkeypatch):
    original = released.object_nce
    monkeypatch.setattr(released, "object_nce", lambda *arguments: 1.1 * original(*arguments))
    with pytest.raises(EagleError, match=r"local_pos_loss.*not timed"):
        check(name, case)


def test_check__a_wrong_eigenvector_is_refused(case, monkeypatch):
    original = Released.eigenvectors
    monkeypatch.setattr(Released, "eigenvectors", lambda self, code, img: original(self, code.flip(dims=[3]), img))
    with pytest.raises(EagleError, match=r"eigenvectors.*not timed"):
        check("eigen", case)
