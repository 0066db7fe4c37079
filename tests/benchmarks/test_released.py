"""The benchmark's released side computes the released losses; different computations are not timed."""

import weakref

import pytest
import torch

from conftest import TINY_VIT
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


def test_released__losses_of_the_recorded_step(golden, make_config):
    meta = golden.metadata("i_state_cocostuff")
    weights = {"pos_inter_weight", "neg_inter_weight", "correspondence_weight", "shift_bias", "shift_value"}
    values = {k: int(v) if v.isdigit() and k not in weights else float(v) for k, v in meta.items() if k != "note"}
    segmenter = LitUnsupervisedSegmenter(27, make_config(dataset_name="cocostuff27", **values)).eval()
    backbone = {f"net.model.{k}": v for k, v in golden.tensors("vit_golden_state").items()}
    segmenter.load_state_dict(golden.tensors("i_state_cocostuff") | backbone)
    images, data = golden.tensors("i_batch"), golden.tensors("i_stepB_nodropout_cocostuff")
    terms = Released(segmenter).losses(
        {"img": images["img"], "img_aug": images["img_pos_aug"], "label": images["label"]},
        segmenter.cfg.step_schedulers,
        torch.stack([data[f"s0.coords{i}"] for i in (1, 2, 3)]),
        data["s0.perms"],
        (data["s0.eigenvectors_pos"], data["s0.eigenvectors_pos_aug"]),
    )
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


def test_released__keeps_every_attention_map_until_a_pass_ends(case, monkeypatch):
    made, kept = [], []
    original, backbone = released._block, case.released.segmenter.net.model

    def watched(block, tokens):
        result = original(block, tokens)
        made.append(weakref.ref(result[1]))
        return result

    monkeypatch.setattr(released, "_block", watched)
    backbone.norm.register_forward_pre_hook(
        lambda *_: kept.extend(attention() for attention in made[-len(backbone.blocks) :])
    )
    case.released.losses(case.batch, 500)
    assert len(made) == len(kept) == 3 * len(backbone.blocks), "x, its positive and x̃"
    n_tokens = (SIDE // backbone.patch_size) ** 2 + 1
    assert all(attention.shape == (2, TINY_VIT["num_heads"], n_tokens, n_tokens) for attention in kept)


def test_released__seven_optimisers_train_every_parameter(case):
    optimizers = case.released.optimizers()
    assert len(optimizers) == 7
    trained = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in case.released.segmenter.parameters() if p.requires_grad} <= trained
