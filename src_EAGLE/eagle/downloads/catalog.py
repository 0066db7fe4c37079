"""Catalog of the pretrained weights that can be fetched, with their sources."""

from dataclasses import dataclass
from pathlib import Path

from eagle.errors import CheckpointError

DINO_URL = "https://dl.fbaipublicfiles.com"
DINOV3_URL = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads"


@dataclass(frozen=True)
class ReleasedModel:
    """One file of weights; a source that does not have it is None."""

    what: str  # description in --list
    size: str  # approximate, "?" if the publisher states none
    public_path: str | None = None  # below DINO_URL
    timm_name: str | None = None  # timm model with the same weights on the Hugging Face hub
    drive_id: str | None = None  # of Google Drive
    stem: str | None = None  # of the downloaded file; None for the model's name

    def address(self, base_url: str = DINO_URL) -> str | None:
        """The file's URL, with another base address of the public ones; None for a model of timm's hub alone."""
        if self.drive_id:
            return f"https://drive.google.com/uc?id={self.drive_id}"
        return f"{base_url.rstrip('/')}/{self.public_path}" if self.public_path else None


def _dino(what: str, size: str, folder: str, timm_name: str | None, stem: str | None = None) -> ReleasedModel:
    return ReleasedModel(what, size, f"dino/{folder}/{folder}.pth", timm_name, stem=stem)


def _dinov2(architecture: str, size: str, file: str, timm_name: str) -> ReleasedModel:
    path = f"dinov2/{file.removesuffix('_reg4')}/{file}_pretrain.pth"
    return ReleasedModel(f"DINOv2 {architecture}", size, path, f"{timm_name}_dinov2.lvd142m")


MODELS = {
    # Released EAGLE and STEGO use DINO's 300-epoch file. No file is named dino_vits8.pth, because an earlier version of
    # this code used that name for the 800-epoch file.
    "dino_vits8": _dino(
        "DINO ViT-S/8, 300 epochs (released EAGLE)", "87 MB", "dino_deitsmall8_300ep_pretrain", None, "dino_vits8_300ep"
    ),
    "dino_vits8_800ep": _dino(
        "DINO ViT-S/8, 800 epochs", "87 MB", "dino_deitsmall8_pretrain", "vit_small_patch8_224.dino"
    ),
    "dino_vits16": _dino("DINO ViT-S/16", "87 MB", "dino_deitsmall16_pretrain", "vit_small_patch16_224.dino"),
    "dino_vitb8": _dino("DINO ViT-B/8", "343 MB", "dino_vitbase8_pretrain", "vit_base_patch8_224.dino"),
    "dino_vitb16": _dino("DINO ViT-B/16", "343 MB", "dino_vitbase16_pretrain", "vit_base_patch16_224.dino"),
    "dinov2_vits14": _dinov2("ViT-S/14", "88 MB", "dinov2_vits14", "vit_small_patch14"),
    "dinov2_vits14_reg": _dinov2("ViT-S/14, 4 registers", "88 MB", "dinov2_vits14_reg4", "vit_small_patch14_reg4"),
    "dinov2_vitb14": _dinov2("ViT-B/14", "346 MB", "dinov2_vitb14", "vit_base_patch14"),
    "dinov2_vitb14_reg": _dinov2("ViT-B/14, 4 registers", "346 MB", "dinov2_vitb14_reg4", "vit_base_patch14_reg4"),
    "dinov3_vits16": ReleasedModel("DINOv3 ViT-S/16", "86 MB", timm_name="vit_small_patch16_dinov3.lvd1689m"),
    "dinov3_vitb16": ReleasedModel("DINOv3 ViT-B/16", "343 MB", timm_name="vit_base_patch16_dinov3.lvd1689m"),
    "mae_vitb16": ReleasedModel(
        "MAE ViT-B/16", "343 MB", "mae/pretrain/mae_pretrain_vit_base.pth", "vit_base_patch16_224.mae"
    ),
    "eva02_vits14": ReleasedModel("EVA-02 ViT-S/14", "86 MB", timm_name="eva02_small_patch14_224.mim_in22k"),
    "eva02_vitb14": ReleasedModel("EVA-02 ViT-B/14", "343 MB", timm_name="eva02_base_patch14_224.mim_in22k"),
    "clip_vitb16": ReleasedModel("CLIP ViT-B/16 (OpenAI)", "343 MB", timm_name="vit_base_patch16_clip_224.openai"),
    "siglip_vitb16": ReleasedModel("SigLIP ViT-B/16", "372 MB", timm_name="vit_base_patch16_siglip_224.webli"),
    "eagle_cocostuff_vits8": ReleasedModel(
        "EAGLE's COCO-Stuff checkpoint, ViT-S/8",
        "?",
        drive_id="1fRZB_Tx2cZn5XayY0MiC9gv6D9kML7lh",
        stem="EAGLE_COCO_ViTS8",
    ),
    "eagle_cityscapes_vitb8": ReleasedModel(
        "EAGLE's Cityscapes checkpoint, ViT-B/8",
        "?",
        drive_id="1W943QkhcnD2l3Ye58ovG5fsGdZ1uFpuH",
        stem="EAGLE_Cityscapes_ViTB8",
    ),
}


def local_weights(output_dir: str | Path, name: str) -> Path | None:
    """The file of model ``name`` in ``output_dir``; None if it has not been fetched."""
    files = (Path(output_dir) / f"{MODELS[name].stem or name}{suffix}" for suffix in (".pth", ".safetensors", ".ckpt"))
    return next((file for file in files if file.is_file()), None)


def licence_hint(timm_name: str) -> str:
    """What to do when DINOv3's weights cannot be fetched, as the end of an error message; empty for other models."""
    if "_dinov3" not in timm_name:
        return ""
    return f"; if access is refused, accept the licence at {DINOV3_URL}, see docs/backbones.md"


def require_checkpoint(path: Path, key: str | None = None) -> None:
    """Raise CheckpointError that names ``key`` if a checkpoint is missing; for a released one say how to fetch it."""
    if path.is_dir():
        raise CheckpointError(f"{f'{key}: ' if key else ''}{path}: is a folder; name a checkpoint in it")
    if not path.is_file():
        released = next((name for name, model in MODELS.items() if model.drive_id and model.stem == path.stem), None)
        command = f"python download_models.py models=[{released}] output_dir={path.parent}"
        remedy = f"; `{command}` fetches it" if released and path.suffix == ".ckpt" else ""
        raise CheckpointError(f"{f'{key}: ' if key else ''}{path}: no such checkpoint{remedy}")
