"""Load backbone weights from a file, or by model name."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import eva, vision_transformer
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from eagle.downloads.catalog import MODELS, licence_hint, local_weights
from eagle.downloads.fetching import timm_state
from eagle.errors import WeightsError
from eagle.files import default_folder

# The folder of download_models.py.
WEIGHTS_DIR = Path(default_folder("models"))

# Parts after the last block, which K does not need; files often lack them or hold others than timm's model.
_NOT_BACKBONE = ("head.", "head_dist.", "fc.", "fc_norm.", "attn_pool.")


def load_backbone_weights(
    vit: VisionTransformer | Eva, name: str, source: str | None, weights_name: str | None = None
) -> None:
    """Fill ``vit`` with pre-trained weights.

    Args:
        vit: the model, changed in place.
        name: its timm name.
        source: a .pth or .safetensors file; None for the file that ``download_models.py`` saved in ``models/``, or
            the same weights from timm's hub if there is no such file.
        weights_name: name of the weights in ``download_models.py``; None if not offered there.

    Raises:
        WeightsError: the file is missing or unreadable, its tensors do not fit, or the hub cannot be reached.
    """
    path = Path(source) if source is not None else weights_name and local_weights(WEIGHTS_DIR, weights_name)
    state = _backbone_part(read_weights(path)) if path else _from_hub(name, weights_name)
    origin = str(path or f"timm's {name}")
    if any(key.startswith("net.model.") for key in state):
        raise WeightsError(f"{origin}: is the checkpoint of a segmenter, not the weights of a backbone")
    try:
        state = _with_timm_names(state, vit)
    except ValueError as error:
        raise WeightsError(f"{origin}: does not fit {name}: {error}") from error
    except Exception as error:  # timm does not specify what it raises for an unknown format
        raise WeightsError(f"{origin}: does not hold the weights of {name} ({error})") from error
    state, wanted = _before_heads(state), _before_heads(vit.state_dict())
    if mismatches := tensor_mismatches(state, wanted):
        raise WeightsError(f"{origin}: does not fit {name}: {mismatches}")
    vit.load_state_dict(state, strict=False)


def read_weights(path: Path) -> Mapping[str, Any]:
    """Read a .safetensors or ``torch.save`` file without running code in it.

    Raises:
        WeightsError: the file is missing, empty, truncated, or holds anything but tensors and plain containers.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; `python download_models.py --list` lists the available weights"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or "empty or truncated"
        raise WeightsError(f"{path}: not a readable weights file ({reason})") from error
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path}: holds a {type(loaded).__name__}, not named tensors")
    return loaded


def tensor_mismatches(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Missing, unknown and mis-shaped tensors of a state dict, in words; empty if it fits."""
    problems = [f"lacks {name}" for name in sorted(wanted.keys() - state.keys())]
    problems += [f"has an unknown {name}" for name in sorted(state.keys() - wanted.keys())]
    problems += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(state.keys() & wanted.keys())
        if state[name].shape != wanted[name].shape
    ]
    return "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")


def download_name(timm_name: str) -> str | None:
    """Name of a timm model's weights in ``download_models.py``; None if not offered there.

    One architecture can have weights of several trainings, named by the tag after the dot: ``vit_base_patch16_224`` has
    DINO's and MAE's. Without a tag, timm's default is meant.
    """
    if "." not in timm_name and (default := timm.get_pretrained_cfg(timm_name)):
        timm_name = f"{timm_name}.{default.tag}"
    return next((name for name, model in MODELS.items() if model.timm_name == timm_name), None)


def _with_timm_names(state: dict[str, Tensor], vit: VisionTransformer | Eva) -> dict[str, Tensor]:
    """Rename the tensors of a publisher's file as in timm; raise ValueError if that would lose some."""
    if not isinstance(vit, Eva):
        return vision_transformer.checkpoint_filter_fn(state, vit)
    first: Any = vit.blocks[0]
    biases = {key: bias for key, bias in state.items() if key.endswith("attn.qkv.bias")}
    if biases and first.attn.q_bias is None:
        # timm drops these, which is right only while they are zero. The key's third is masked in DINOv3, so unused.
        if any(part.any() for bias in biases.values() for part in bias.chunk(3)[::2]):
            raise ValueError("its query and value biases are not zero; use the model whose name has _qkvb")
        state = {key: value for key, value in state.items() if key not in biases}
    return eva.checkpoint_filter_fn(state, vit)


def _before_heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(_NOT_BACKBONE)}


def _from_hub(timm_name: str, weights_name: str | None) -> dict[str, Tensor]:
    """The state dict from timm's hub, except for DINO ViT-S/8: the hub lacks the weights that released EAGLE uses."""
    fetch = f"run `python download_models.py models=[{weights_name}]` with a network connection, or "
    if weights_name == "dino_vits8":
        raise WeightsError(
            f"no weights for DINO ViT-S/8 in {WEIGHTS_DIR}: {fetch}name a file with pretrained_weights=PATH. Released "
            "EAGLE uses dino_deitsmall8_300ep_pretrain.pth; timm has only dino_deitsmall8_pretrain.pth (800 epochs): "
            "set model_type=vit_small_patch8_224.dino to use that"
        )
    try:
        return timm_state(timm_name)
    except Exception as error:  # network, cache and "no pretrained weights" errors share no base class
        fetch = fetch if weights_name else ""
        raise WeightsError(
            f"no weights for {timm_name} in {WEIGHTS_DIR}, and timm could not fetch them: {fetch}name a file with "
            f"pretrained_weights=PATH{licence_hint(timm_name)}"
        ) from error


def _backbone_part(loaded: Mapping[str, Any]) -> dict[str, Tensor]:
    """The backbone's tensors, without wrapper prefixes; of a DINO training checkpoint, the teacher's."""
    for wrapper in ("teacher", "model", "state_dict"):
        if isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    state = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "backbone."):
        if any(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state
