import pytest
import torch

from eagle.config.schema import TrainConfig
from eagle.losses.correspondence import CorrespondenceLoss, grid_corners, patch_rows, sample

# The other keys have the released defaults.
FEW = {"feature_samples": 3, "neg_samples": 2}


@pytest.mark.parametrize("which", ["cocostuff", "cityscapes"])
@pytest.mark.parametrize("size", ["small", "full"])
def test_correspondence__released_losses_and_gradients(golden, which, size):
    name = f"e_corr_{which}_{size}"
    data, meta = golden.tensors(name), golden.metadata(name)
    loss = CorrespondenceLoss(
        TrainConfig(feature_samples=int(meta["feature_samples"]), shift_bias=float(meta["shift_bias"]))
    )
    codes = [data[key].clone().requires_grad_() for key in ("code", "code_pos", "code_pos_aug")]
    coords = torch.stack([data["coords1"], data["coords2"], data["coords3"]])
    out = loss(data["feats"], data["feats_pos"], data["feats_pos_aug"], *codes, coords, data["perms"])
    for ours, theirs in [
        (out["pos_inter_loss"], data["pos_loss"]),
        (out["neg_inter_loss"].mean(), data["neg_loss_mean"]),
        (out["pos_inter_cd"].mean(), data["pos_cd_mean"]),
        (out["neg_inter_cd"].mean(), data["neg_cd_mean"]),
    ]:
        assert float(ours.detach()) == pytest.approx(float(theirs), rel=1e-5, abs=1e-7)
    if size == "small":
        assert torch.allclose(out["neg_inter_loss"], data["neg_loss"], atol=1e-5)
        assert torch.allclose(out["pos_inter_cd"], data["pos_cd"], atol=1e-5)
    total = float(meta["pos_inter_weight"]) * out["pos_inter_loss"]
    (total + float(meta["neg_inter_weight"]) * out["neg_inter_loss"].mean()).backward()
    for code, key in zip(codes, ("grad_code", "grad_code_pos", "grad_code_pos_aug"), strict=True):
        assert (code.grad - data[key]).norm() / data[key].norm() < 1e-3


def test_correspondence__clamps_can_be_lifted():
    feats = torch.randn(2, 4, 3, 3)
    free = CorrespondenceLoss(TrainConfig(**FEW, zero_clamp=False, stabalize=False))
    clamped = CorrespondenceLoss(TrainConfig(**FEW))
    coords, perms = free.random_coords(2, torch.device("cpu")), torch.tensor([[1, 0]])
    inputs = (feats, feats, feats, -feats, -feats, feats)
    assert free(*inputs, coords, perms)["pos_inter_loss"] != clamped(*inputs, coords, perms)["pos_inter_loss"]


def test_sample__equals_grid_sample_and_its_gradient():
    """Includes corners, borders and points outside; each point set samples the image given for it."""
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4, 5, requires_grad=True)
    points = torch.rand(3, 7, 7, 2) * 2.4 - 1.2
    points[0, 0, :4] = torch.tensor([[-1, -1], [1, 1], [-1, 1], [0, 0]])
    images = torch.tensor([1, 1, 0])
    grid = points.transpose(1, 2)
    expected = torch.nn.functional.grid_sample(features[images], grid, padding_mode="border", align_corners=True)
    found = sample(patch_rows(features), grid_corners(points, 4, 5), images)
    assert torch.allclose(found, expected.flatten(2).transpose(1, 2), atol=1e-5)
    cotangent = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, features, cotangent)
    (gradient,) = torch.autograd.grad(found, features, cotangent.flatten(2).transpose(1, 2))
    assert torch.allclose(gradient, expected_gradient, atol=1e-5)


def test_sample__a_single_patch():
    features = torch.randn(2, 3, 1, 1)
    found = sample(patch_rows(features), grid_corners(torch.rand(2, 4, 4, 2) * 2 - 1, 1, 1))
    assert torch.allclose(found, features.flatten(2).transpose(1, 2).expand(-1, 16, -1))
