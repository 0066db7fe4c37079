"""The whole training step against the released code (golden i), and edge cases."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from conftest import recorded
from eagle.maps.probe_maps import MapSettings
from eagle.segmenter import LitUnsupervisedSegmenter

WHICH = ["cocostuff", "cityscapes"]
TERMS = [
    "loss/pos_inter", "loss/neg_inter", "loss/local_pos_loss", "loss/local_pos_aug_loss", "loss/cluster_eigen_loss",
    "loss/linear", "loss/cluster", "loss/total", "cd/pos_inter", "cd/neg_inter", "cd/update_params",
]  # fmt: skip


TRAINED = {
    "net.cluster1.0.weight", "net.cluster1.0.bias", "net.cluster2.0.weight", "net.cluster2.0.bias",
    "net.cluster2.2.weight", "net.cluster2.2.bias", "project_head.weight", "project_head.bias",
    "train_cluster_probe_eigen.clusters", "train_cluster_probe_eigen_aug.clusters", "cluster_probe.clusters",
    "linear_probe.weight", "linear_probe.bias",
}  # fmt: skip


def assert_gradients(segmenter, data, prefix, unrecorded=frozenset()):
    """All trained parameters have gradients, no others do, and all except the unrecorded ones match the recording."""
    parameters = {name: p for name, p in segmenter.named_parameters() if p.grad is not None}
    assert parameters.keys() == TRAINED
    assert {k.removeprefix(prefix) for k in data if k.startswith(prefix)} == TRAINED - unrecorded
    for name in TRAINED - unrecorded:
        parameter, expected = parameters[name], data[prefix + name]
        error = (parameter.grad - expected).norm()
        assert error <= 1e-3 * expected.norm() or error < 1e-7, name


@pytest.mark.parametrize("which", WHICH)
def test_losses__three_published_steps_and_the_parameters_after(golden, golden_segmenter, golden_batch, which):
    segmenter = golden_segmenter(which).eval()
    data, after = golden.tensors(f"i_stepB_nodropout_{which}"), golden.tensors(f"i_stepB_params_after_3_{which}")
    optimizer = segmenter.configure_optimizers()
    for i, step in enumerate(range(segmenter.cfg.step_schedulers, segmenter.cfg.step_schedulers + 3)):
        terms = segmenter.losses(golden_batch, step, **recorded(data, f"s{i}."))
        for term in TERMS:
            expected = float(data[f"s{i}.log.{term}"])
            assert float(terms[term].detach()) == pytest.approx(expected, rel=1e-5, abs=1e-6), (i, term)
        optimizer.zero_grad()
        terms["loss/total"].backward()
        if i < 2:
            assert_gradients(segmenter, data, f"s{i}.grad.", {"net.cluster2.0.weight"} if i == 0 else frozenset())
        optimizer.step()
    assert {name.removeprefix("adam_step.") for name in after if name.startswith("adam_step.")} == TRAINED
    parameters = dict(segmenter.named_parameters())
    for name in TRAINED:
        assert (parameters[name] - after[name]).norm() <= 1e-5 * after[name].norm(), name
        assert int(optimizer.state[parameters[name]]["step"]) == int(after[f"adam_step.{name}"]) == 3


class RecordedDropout(nn.Module):
    """Replays Dropout2d masks in the order in which the released network drew them."""

    def __init__(self, masks):
        super().__init__()
        self.masks = list(masks)

    def forward(self, x):
        return x * self.masks.pop(0)[:, :, None, None]


@pytest.mark.parametrize("which", WHICH)
def test_losses__published_step_with_dropout(golden, golden_segmenter, golden_batch, which):
    """The released code passes x through the network twice (as image and as positive) with other dropout masks, ours
    once. So each term is compared in the pass with its masks, and the gradients are summed."""
    data = golden.tensors(f"i_stepA_dropout_{which}")
    step = int(golden.metadata(f"i_stepA_dropout_{which}")["global_step"])
    segmenter = golden_segmenter(which)
    cfg = segmenter.cfg
    by_view = {
        "img": ["loss/neg_inter", "cd/neg_inter", "loss/linear", "loss/cluster"],
        "img_pos": [
            "loss/pos_inter", "cd/pos_inter", "loss/local_pos_loss", "loss/local_pos_aug_loss",
            "loss/cluster_eigen_loss", "cd/update_params",
        ],
    }  # fmt: skip
    gradients = []
    for view, names in by_view.items():
        model = deepcopy(segmenter).train()
        uses = [f"dropmask.{v}.{use}" for v in (view, "img_pos_aug") for use in ("kk_c1", "kk_c2", "kk_ret")]
        model.net.dropout = RecordedDropout(data[use] for use in uses)
        terms = model.losses(golden_batch, step, **recorded(data))
        for name in names:
            assert float(terms[name].detach()) == pytest.approx(float(data[f"log.{name}"]), rel=1e-5, abs=1e-6), name
        negative = (1 - cfg.momentum_limit) * cfg.correspondence_weight * cfg.neg_inter_weight * terms["loss/neg_inter"]
        from_img = negative + terms["loss/linear"] + terms["loss/cluster"]
        (from_img if view == "img" else terms["loss/total"] - from_img).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for name, parameter in segmenter.named_parameters():
        parts = [g[name] for g in gradients if name in g]
        parameter.grad = sum(parts[1:], parts[0]) if parts else None
    assert_gradients(segmenter, data, "grad.")


@pytest.mark.parametrize("which", WHICH)
def test_losses__own_eigenvectors_are_the_published_up_to_sign(golden, golden_segmenter, golden_batch, which):
    segmenter = golden_segmenter(which).eval()
    data = golden.tensors(f"i_stepB_nodropout_{which}")
    code = segmenter(golden_batch["img"])
    code_aug = segmenter(golden_batch["img_aug"])
    ours = segmenter._eigenvectors(golden_batch["img"], golden_batch["img_aug"], code, code_aug)
    for vectors, key in zip(ours, ("s0.eigenvectors_pos", "s0.eigenvectors_pos_aug"), strict=True):
        assert ((vectors * data[key]).sum(dim=1).abs() > 0.9999).all()


@pytest.mark.filterwarnings("ignore:.*self.trainer")
def test_validation_step__bfloat16_decides_by_float32_logits_as_an_evaluation_does(make_config):
    torch.manual_seed(0)
    segmenter = LitUnsupervisedSegmenter(5, make_config()).eval()
    batch, probe = tiny_batch(size=112), segmenter.linear_probe
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        code = segmenter(batch["img"])
    with torch.no_grad():
        # Random weights strongly prefer one class; centre the logits so that none leads.
        probe.bias -= probe(code.float()).mean(dim=(0, 2, 3))
        exact = nn.functional.interpolate(probe(code.float()), (112, 112), mode="bilinear").argmax(dim=1)
    assert code.dtype == torch.bfloat16
    assert len(exact.unique()) == 5
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        validated = segmenter.validation_step(batch, 0)["linear"]
        evaluated = segmenter.probe_maps(MapSettings(flip=False))(batch["img"])["linear"].argmax(dim=1)
    assert torch.equal(validated, exact)
    assert (evaluated != exact).float().mean() < 1e-4, "log-probabilities round a little"


def tiny_batch(label_value=0, size=56):
    torch.manual_seed(0)
    img = torch.randn(2, 3, size, size)
    return {"img": img, "img_aug": img + 0.1, "label": torch.full((2, size, size), label_value)}


@pytest.mark.parametrize("label_entry", [True, False])
def test_losses__without_labels_are_finite_and_leave_the_linear_probe_unchanged(make_config, label_entry):
    segmenter = LitUnsupervisedSegmenter(5, make_config())
    batch = tiny_batch(label_value=-1)
    if not label_entry:
        del batch["label"]
    terms = segmenter.losses(batch, step=500)
    terms["loss/total"].backward()
    assert torch.isfinite(terms["loss/total"])
    assert float(terms["loss/linear"].detach()) == 0
    assert segmenter.linear_probe.weight.grad.abs().sum() == 0


def test_losses__paper_fidelity_takes_the_augmented_colours(make_config):
    batch = tiny_batch()
    batch["img_aug"] = torch.randn(2, 3, 56, 56)
    segmenter = LitUnsupervisedSegmenter(5, make_config(fidelity="paper")).eval()
    code = torch.randn(2, 32, 7, 7)
    vectors, vectors_aug = segmenter._eigenvectors(batch["img"], batch["img_aug"], code, code)
    assert not torch.allclose(vectors, vectors_aug, atol=1e-2)
    segmenter = LitUnsupervisedSegmenter(5, make_config()).eval()
    vectors, vectors_aug = segmenter._eigenvectors(batch["img"], batch["img_aug"], code, code)
    assert torch.allclose(vectors, vectors_aug, atol=1e-3)


def test_losses__unchanged_views_do_not_pass_the_backbone_again(make_config):
    segmenter = LitUnsupervisedSegmenter(5, make_config()).eval()
    passes = []
    segmenter.net.model.register_forward_pre_hook(lambda _m, args: passes.append(len(args[0])))
    batch = tiny_batch()
    batch["img_aug"] = batch["img"].clone()
    batch["img_aug"][1] += 0.5
    keys, keys_aug = segmenter._frozen_keys(batch)
    assert passes == [2, 1]
    assert torch.equal(keys_aug[0], keys[0])
    assert torch.allclose(keys_aug, segmenter.net.model(batch["img_aug"]), atol=1e-5)
