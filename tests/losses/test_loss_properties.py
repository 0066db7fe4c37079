"""Properties of both losses for any codes and cues, including degenerate ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from eagle.config.schema import TrainConfig
from eagle.losses.correspondence import CorrespondenceLoss
from eagle.losses.object_nce import ObjectNCELoss
from eagle.segmenter import LitUnsupervisedSegmenter

N_LABELS = 4
MODES = st.sampled_from(["prototype", "mean", "learned"])
SMOOTHING = st.sampled_from([0.0, 0.1])
SEEDS = st.integers(0, 99)


def object_nce(mode="prototype", smoothing=0.0):
    torch.manual_seed(0)
    cfg = TrainConfig(centroid_mode=mode, label_smoothing=smoothing)
    return ObjectNCELoss(cfg, N_LABELS, dim=6)


def correspondence():
    return CorrespondenceLoss(TrainConfig(feature_samples=3, neg_samples=2))


@st.composite
def projections(draw):
    """Z and Z̃ of one or two images of N patches, with cue and patch weights; often degenerate."""
    torch.manual_seed(draw(SEEDS))
    n_images, n_patches = draw(st.integers(1, 2)), draw(st.integers(1, 9))
    source, target = F.normalize(torch.randn(2, n_images * n_patches, 6), dim=2)
    kind = draw(st.sampled_from(["random", "one vector", "zero", "views alike"]))
    if kind == "one vector":
        source = target = source[:1].expand_as(source).clone()
    elif kind == "zero":  # the normalised zero projection
        source = target = torch.zeros_like(source)
    elif kind == "views alike":
        target = source.clone()
    one_label = draw(st.booleans())
    cue = torch.full((n_images, n_patches, 1), 2) if one_label else torch.randint(N_LABELS, (n_images, n_patches, 1))
    return source, target, cue, torch.rand(n_images, n_patches)


@given(projections(), MODES, SMOOTHING)
def test_object_nce__is_finite_and_not_negative_with_finite_gradients(inputs, mode, smoothing):
    source, target, cue, weights = inputs
    source.requires_grad_()
    target = target.detach().clone().requires_grad_()
    value = object_nce(mode, smoothing)(source, target, cue, weights)
    value.backward()
    assert torch.isfinite(value)
    assert value >= 0
    assert torch.isfinite(target.grad).all()
    if mode != "learned" or source.grad is not None:
        assert torch.isfinite(source.grad).all()


@given(projections(), st.sampled_from(["mean", "learned"]), SMOOTHING, SEEDS)
def test_object_nce__renumbering_patches_or_images_changes_nothing(inputs, mode, smoothing, seed):
    """Except medoids: their ties depend on the order."""
    source, target, cue, weights = inputs
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    loss = object_nce(mode, smoothing)
    renumbered = loss(source[order], target[order], cue.flatten()[order].view_as(cue), weights.flatten()[order])
    assert float(renumbered.detach()) == pytest.approx(
        float(loss(source, target, cue, weights).detach()), rel=1e-4, abs=1e-6
    )


@given(SEEDS, SMOOTHING)
def test_object_nce__unique_medoids_do_not_depend_on_the_order(seed, smoothing):
    torch.manual_seed(seed)
    source, target = F.normalize(torch.randn(2, 40, 6), dim=2)  # ten members a label: no ties in general position
    cue, weights, order = torch.arange(40).remainder(N_LABELS), torch.rand(40), torch.randperm(40)
    loss = object_nce(smoothing=smoothing)
    plain = loss(source, target, cue.view(1, 40, 1), weights)
    renumbered = loss(source[order], target[order], cue[order].view(1, 40, 1), weights[order])
    assert float(renumbered) == pytest.approx(float(plain), rel=1e-4)


@given(
    SEEDS, st.integers(1, 3), st.integers(1, 4), st.sampled_from(["random", "constant", "zero", "duplicated images"])
)
def test_correspondence__is_finite_with_finite_gradients(seed, n_images, side, kind):
    torch.manual_seed(seed)
    feats, code = torch.randn(n_images, 5, side, side), torch.randn(n_images, 6, side, side)
    if kind == "constant":
        feats, code = feats[:, :, :1, :1].expand_as(feats), code[:, :, :1, :1].expand_as(code)
    elif kind == "zero":
        feats, code = torch.zeros_like(feats), torch.zeros_like(code)
    elif kind == "duplicated images":
        feats, code = feats[:1].expand_as(feats), code[:1].expand_as(code)
    code = code.clone().requires_grad_()
    out = correspondence()(feats, feats, feats, code, code, code)
    (out["pos_inter_loss"] + out["neg_inter_loss"].mean()).backward()
    assert all(torch.isfinite(value).all() for value in out.values())
    assert torch.isfinite(code.grad).all()


@given(SEEDS, st.integers(2, 5))
def test_correspondence__reordering_the_images_changes_nothing(seed, n_images):
    torch.manual_seed(seed)
    feats, feats_aug = torch.randn(2, n_images, 5, 3, 3)
    code, code_aug = torch.randn(2, n_images, 6, 3, 3)
    loss = correspondence()
    coords, perm = loss.random_coords(n_images, feats.device), loss.random_perms(n_images, feats.device)[0]
    order = torch.randperm(n_images)
    place = order.argsort()  # new position of each image
    plain = loss(feats, feats, feats_aug, code, code, code_aug, coords, perm[None])
    inputs = (each[order] for each in (feats, feats, feats_aug, code, code, code_aug))
    reordered = loss(*inputs, coords[:, order], place[perm[order]][None])
    for name, value in plain.items():
        assert float(reordered[name].mean()) == pytest.approx(float(value.mean()), rel=1e-4, abs=1e-6)


@given(st.integers(2, 40), SEEDS)
def test_negatives__are_other_images(batch_size, seed):
    torch.manual_seed(seed)
    perms = correspondence().random_perms(batch_size, torch.device("cpu"))
    assert perms.shape == (2, batch_size)
    assert (perms != torch.arange(batch_size)).all()
    assert perms.min() >= 0
    assert perms.max() < batch_size


def test_correspondence__a_batch_of_one_has_no_negatives():
    """Negative loss and correlation are zero; the positive loss is unchanged."""
    torch.manual_seed(0)
    feats, code = torch.randn(1, 5, 3, 3), torch.randn(1, 6, 3, 3, requires_grad=True)
    loss = correspondence()
    coords = loss.random_coords(1, feats.device)
    out = loss(feats, feats, feats, code, code, code, coords)
    assert out["neg_inter_loss"].abs().sum() == 0
    assert out["neg_inter_cd"].abs().sum() == 0
    given_itself = loss(feats, feats, feats, code, code, code, coords, torch.tensor([[0]]))
    assert torch.equal(out["pos_inter_loss"], given_itself["pos_inter_loss"])


def segmenter_batch(kind):
    torch.manual_seed(0)
    img = torch.randn(1 if kind == "batch of one" else 2, 3, 24, 24)
    if kind == "constant image":
        img = torch.zeros_like(img)
    elif kind == "one colour each":
        img = img[:, :, :1, :1].expand_as(img).clone()
    elif kind == "duplicated images":
        img = img[:1].expand_as(img).clone()
    elif kind == "one patch":
        img = img[:, :, :8, :8].clone()
    label = torch.full((len(img), *img.shape[2:]), -1 if kind == "no labels" else 1)
    return {"img": img, "img_aug": img * 0.9, "label": label}


@pytest.mark.parametrize(
    "kind",
    ["constant image", "one colour each", "duplicated images", "one patch", "batch of one", "no labels", "zero codes"],
)
def test_whole_step__is_finite_with_finite_gradients(make_config, kind):
    segmenter = LitUnsupervisedSegmenter(3, make_config())
    if kind == "zero codes":
        for parameter in segmenter.net.parameters():
            if parameter.requires_grad:
                parameter.data.zero_()
    terms = segmenter.losses(segmenter_batch(kind), 500)
    terms["loss/total"].backward()
    assert all(torch.isfinite(value) for value in terms.values())
    trained = [p for p in segmenter.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
