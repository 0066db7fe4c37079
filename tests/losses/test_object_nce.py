import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eagle.config.schema import TrainConfig
from eagle.losses import object_nce
from eagle.losses.object_nce import (
    ObjectNCELoss,
    lambda_at,
    medoids,
    medoids_by_label,
    medoids_by_mask,
    patch_weights,
)


@pytest.mark.parametrize(
    ("which", "mode"),
    [
        ("cocostuff", "prototype"),
        ("cocostuff", "medoid"),
        ("cocostuff", "mean"),
        ("cocostuff", "learned"),
        ("cityscapes", "prototype"),
    ],
)
def test_object_nce__released_losses_and_gradients(golden, which, mode):
    data = golden.tensors(f"f_infonce_{which}_{mode}")
    loss = ObjectNCELoss(TrainConfig(dataset_name=which, centroid_mode=mode), 27, dim=24)
    if mode == "learned":
        loss.learned_centroids.data = data["learned_centroids"].clone()
    source, target = (data[key].clone().requires_grad_() for key in ("S1", "S2"))
    value = loss(source, target, data["segmentation_map"], data["similarity"])
    value.backward()
    assert float(value.detach()) == pytest.approx(float(data["loss"]), rel=1e-5)
    for tensor, key in ((source, "grad_S1"), (target, "grad_S2")):
        if data[key].norm() > 0:
            assert (tensor.grad - data[key]).norm() / data[key].norm() < 1e-3
    if mode == "learned":
        expected = data["grad_learned_centroids"]
        assert (loss.learned_centroids.grad - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("mode", ["prototype", "mean", "learned"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_object_nce__labels_without_members_change_neither_loss_nor_gradients(mode, smoothing):
    torch.manual_seed(0)
    source, target = F.normalize(torch.randn(2, 32, 6), dim=2)
    cue, weights = torch.tensor([0, 2, 3, 6])[torch.randint(0, 4, (2, 4, 4))], torch.rand(2, 16)
    loss = ObjectNCELoss(TrainConfig(centroid_mode=mode, label_smoothing=smoothing), 9, dim=6)
    results = []
    for n_labels in (None, 7, 9, 20):
        views = [view.clone().requires_grad_() for view in (source, target)]
        value = loss(*views, cue, weights, n_labels)
        value.backward()
        results.append(torch.cat([value.detach()[None], *(view.grad.flatten() for view in views)]))
    assert all(torch.allclose(result, results[0], atol=1e-7) for result in results)
    assert torch.isfinite(results[0]).all()


def random_views(n_images=3, side=4, dim=6, n_labels=4):
    generator = torch.Generator().manual_seed(0)
    views = F.normalize(torch.randn(2, n_images * side * side, dim, generator=generator), dim=2)
    cue = torch.randint(0, n_labels, (n_images, side, side), generator=generator)
    return [view.requires_grad_() for view in views], cue, torch.rand(n_images, side * side, generator=generator)


@pytest.mark.parametrize("mode", ["prototype", "mean", "learned"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_image_scope__is_the_mean_loss_of_the_images_alone(mode, smoothing):
    views, cue, weights = random_views()
    cue[1, :2] = 3  # fewer labels in one image
    cue[1, 2:] = 1
    if smoothing:
        weights = torch.ones_like(weights)  # with smoothing their mean is one factor for all images
    whole = ObjectNCELoss(TrainConfig(centroid_mode=mode, label_smoothing=smoothing, prototype_scope="image"), 4, dim=6)
    alone = ObjectNCELoss(TrainConfig(centroid_mode=mode, label_smoothing=smoothing), 4, dim=6)
    alone.load_state_dict(whole.state_dict())
    value = whole(*views, cue, weights, 9)
    images = [view.split(16) for view in views]
    expected = torch.stack(
        [alone(a, b, cue[i : i + 1], weights[i : i + 1]) for i, (a, b) in enumerate(zip(*images, strict=True))]
    ).mean()
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(torch.autograd.grad(value, views), torch.autograd.grad(expected, views), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_image_scope__swapped_labels_of_one_image_cost_nothing():
    """Two images of the same two objects, numbered the other way round, at τ = 1 and without a second view.

    Within images every patch lies at its prototype: log(1 + e⁻¹). Over the batch, one image's lie at the wrong one.
    """
    a, b = torch.eye(4)[:2]
    source, cue, weights = torch.stack([a, b, a, b]), torch.tensor([[[0, 1]], [[1, 0]]]), torch.ones(2, 2)
    values = {"contrastive_temp": 1.0, "global_loss_weight": 0.0}
    image, batch = (ObjectNCELoss(TrainConfig(**values, prototype_scope=scope), 2) for scope in ("image", "batch"))
    right, wrong = (float(F.softplus(torch.tensor(sign))) for sign in (-1.0, 1.0))
    assert float(image(source, source, cue, weights)) == pytest.approx(right / 2)
    assert float(batch(source, source, cue, weights)) == pytest.approx((right + wrong) / 4)


BOTH_FORMS = pytest.mark.parametrize("form", [medoids_by_label, medoids_by_mask])


def by_loop(patches, labels, n_labels):
    """Medoids from the definition, in float64."""
    points, chosen = patches.double().numpy(), []
    for label in range(n_labels):
        members = np.flatnonzero(labels.numpy() == label)
        sums = [sum(np.linalg.norm(points[i] - points[j]) for j in members) for i in members]
        chosen.append(int(members[np.argmin(sums)]) if len(members) else 0)
    return chosen


@BOTH_FORMS
@pytest.mark.parametrize("block", [4, 16, 1000])
def test_medoids__equal_a_loop(monkeypatch, form, block):
    """For any block size; label 3 has no members."""
    monkeypatch.setattr(object_nce, "ROW_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(60, 5, generator=generator)
    labels = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (60,), generator=generator)]
    labels[7] = 5  # alone
    assert form(patches, labels, 6).tolist() == by_loop(patches, labels, 6)


@BOTH_FORMS
def test_medoids__ties_go_to_the_first_member(form):
    """Distances are integers, so ties are exact."""
    patches = torch.tensor([[0.0], [5.0], [0.0], [8.0], [8.0], [5.0]])
    labels = torch.tensor([1, 0, 1, 2, 2, 0])
    assert form(patches, labels, 3).tolist() == [1, 0, 3] == by_loop(patches, labels, 3)


@pytest.mark.parametrize("block", [8, 1000])
def test_medoids__of_images_are_those_of_each_image_alone(monkeypatch, block):
    """Label 3 has no members, and one image has a single label."""
    monkeypatch.setattr(object_nce, "ROW_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(4, 30, 5, generator=generator)
    labels = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, (4, 30), generator=generator)]
    labels[2] = 1
    found = medoids(patches, labels, 6)
    assert found.tolist() == [by_loop(*image, 6) for image in zip(patches, labels, strict=True)]


@pytest.mark.parametrize(
    ("schedule", "length", "step", "expected"),
    [
        ("released", 200, 0, 0.0),
        ("released", 200, 200, 0.0),
        ("released", 200, 201, 0.9),
        ("paper", 200, 0, 0.0),
        ("paper", 200, 100, 0.45),
        ("paper", 200, 200, 0.9),
        ("paper", 200, 5000, 0.9),
        ("paper", 0, 0, 0.9),
    ],
)
def test_lambda_at__counts_steps(schedule, length, step, expected):
    cfg = TrainConfig(lambda_schedule=schedule, step_schedulers=length, momentum_limit=0.9)
    assert lambda_at(cfg, step) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(2, 30, 5, 4), (2, 3, 6, 8), (1, 6, 1, 1), (1, 6, 1, 3)])
def test_patch_weights__are_row_means_of_the_normalised_similarity(shape):
    """Tiles (N ≤ 3C) and Gram matrix against the definition in float64."""
    torch.manual_seed(0)
    keys = torch.randn(shape) + 0.3
    tokens = keys.double().flatten(2)
    expected = F.normalize(tokens.transpose(1, 2) @ tokens, dim=1).mean(dim=2)
    assert torch.allclose(patch_weights(keys).double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("channels", [2, 40])
def test_patch_weights__zero_key_has_zero_weight(channels):
    keys = torch.randn(1, channels, 3, 3)
    keys[:, :, 1, 1] = 0
    assert patch_weights(keys)[0, 4] == 0
    assert torch.isfinite(patch_weights(keys)).all()
