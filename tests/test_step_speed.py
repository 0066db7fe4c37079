"""The training step on a GPU never waits and can be deterministic; it forms no full attention maps and keeps its losses
in float32. test_fake_gpu.py looks for waits without a GPU."""

from copy import deepcopy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eagle.data.datamodule import HOST_ENTRIES
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral import eigensolver
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.laplacian import normalized_laplacian

# Operators without a deterministic GPU kernel: torch.use_deterministic_algorithms makes them raise.
REFUSED = {
    "grid_sampler_2d_backward", "nll_loss2d_forward", "cumsum", "median", "histc", "put_",
    "replication_pad2d_backward", "reflection_pad2d_backward",
}  # fmt: skip


class Operators(TorchDispatchMode):
    """Records the operators that run and the shapes of their results."""

    def __init__(self):
        super().__init__()
        self.names, self.shapes = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        tensors = out if isinstance(out, (tuple, list)) else [out]
        self.shapes += [tuple(tensor.shape) for tensor in tensors if isinstance(tensor, torch.Tensor)]
        return out


def tiny_batch():
    torch.manual_seed(0)
    img = torch.randn(3, 3, 56, 56)
    img_aug = img.clone()
    img_aug[1] += 0.1
    label = torch.randint(-1, 5, (3, 56, 56))
    return {"img": img, "img_aug": img_aug, "label": label, "changed": torch.tensor([False, True, False])}


def recorded_draws():
    return {
        "coords": torch.rand(3, 3, 11, 11, 2) * 2 - 1,
        "perms": torch.tensor([[1, 2, 0]]),
        "eigenvectors": (torch.randn(3, 49, 4), torch.randn(3, 49, 4)),
    }


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_losses__use_deterministic_gpu_operators_only(make_config, deterministic):
    """The documentation of torch.use_deterministic_algorithms lists the refused operators."""
    segmenter = LitUnsupervisedSegmenter(5, make_config())
    with Operators() as operators:
        segmenter.losses(tiny_batch(), 500)["loss/total"].backward()
    assert len(operators.names) > 500
    assert not [name for name in operators.names if name in REFUSED]


@pytest.mark.gpu
def test_losses__deterministic_runs_repeat_bit_by_bit_on_a_gpu(make_config, deterministic):
    gradients = []
    for _ in range(2):
        torch.manual_seed(0)
        segmenter = LitUnsupervisedSegmenter(5, make_config()).cuda()
        batch = {name: value if name in HOST_ENTRIES else value.cuda() for name, value in tiny_batch().items()}
        segmenter.losses(batch, 500)["loss/total"].backward()
        gradients.append([p.grad for p in segmenter.parameters() if p.grad is not None])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "grid"), [("c_eigen_14x14_b2", (14, 14)), ("c_eigen_28x28_b1", (28, 28))])
def test_eigenvectors__a_gpu_agrees_with_the_released_ones_and_iterates_without_waiting(
    golden, monkeypatch, name, grid
):
    """``set_sync_debug_mode`` raises where the host waits; the last eigh, whose error check waits, is exempt."""
    data = golden.tensors(name)
    affinity = color_affinity(data["img"].cuda(), grid) + feature_affinity(data["code"].cuda())
    laplacian, degree = normalized_laplacian(affinity)
    iterate = eigensolver._iterate_without_waiting
    ordered = eigensolver._rayleigh_ritz

    def watched(*args):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return iterate(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def exempt(*args):
        torch.cuda.set_sync_debug_mode("default")
        return ordered(*args)

    eigensolver.smallest_eigenpairs(laplacian, degree, 4)
    monkeypatch.setattr(eigensolver, "_iterate_without_waiting", watched)
    monkeypatch.setattr(eigensolver, "_rayleigh_ritz", exempt)
    _, vectors = eigensolver.smallest_eigenpairs(laplacian, degree, 4)
    assert ((vectors.cpu() * data["eigenvectors"]).sum(dim=1).abs() > 0.9999).all()


@pytest.mark.gpu
def test_losses__nothing_waits_for_a_gpu(make_config):
    segmenter = LitUnsupervisedSegmenter(5, make_config()).cuda()
    cpu = tiny_batch()
    batch = {name: value if name in HOST_ENTRIES else value.cuda() for name, value in cpu.items()}
    vectors, vectors_aug = recorded_draws()["eigenvectors"]
    vectors = (vectors.cuda(), vectors_aug.cuda())
    segmenter.losses(batch, 500, eigenvectors=vectors)["loss/total"].backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        segmenter.losses(batch, 500, eigenvectors=vectors)["loss/total"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_backbone__forms_no_attention_maps(make_config):
    """Attention is fused: no tensor has the size tokens × tokens."""
    segmenter = LitUnsupervisedSegmenter(5, make_config())
    with Operators() as operators:
        segmenter.net.model(torch.randn(2, 3, 56, 56))
    n_tokens = 7 * 7 + 1
    assert not [shape for shape in operators.shapes if shape[-2:] == (n_tokens, n_tokens)]
    assert any("scaled_dot_product" in name for name in operators.names)


def test_losses__bfloat16_backbone_and_head_come_close_to_float32(make_config):
    segmenter = LitUnsupervisedSegmenter(5, make_config()).eval()
    draws, seen = recorded_draws(), []
    full = segmenter.losses(tiny_batch(), 500, **draws)
    for module in (
        segmenter.net.model.blocks[1].mlp.fc1,
        segmenter.net.model.blocks[0].attn.qkv,
        segmenter.net.cluster1,
    ):
        module.register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = segmenter.losses(tiny_batch(), 500, **draws)
    assert seen == [torch.bfloat16] * 6, "two passes of each"
    for name, value in mixed.items():
        assert value.dtype == torch.float32, name
        assert float(value.detach()) == pytest.approx(float(full[name].detach()), rel=3e-2, abs=1e-3), name


@pytest.mark.slow
def test_losses__compiled_backbone_and_head_give_the_same(make_config):
    torch.manual_seed(0)
    plain = LitUnsupervisedSegmenter(5, make_config()).eval()
    compiled = deepcopy(plain)
    compiled.compile_network()
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    draws = recorded_draws()
    expected, actual = (segmenter.losses(tiny_batch(), 500, **draws)["loss/total"] for segmenter in (plain, compiled))
    assert float(actual.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
