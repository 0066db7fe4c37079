"""Entry point of ``torch.hub.load(CLONE, "eagle", source="local", checkpoint="best.ckpt")``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eagle import Segmenter

dependencies = ["torch", "torchvision", "pytorch_lightning", "timm", "omegaconf", "safetensors", "skimage", "sklearn"]


def eagle(checkpoint: str, device: str = "auto", precision: str = "32-true") -> "Segmenter":
    """Load a trained segmenter; arguments and methods as documented in docs/python.md."""
    sources = str(Path(__file__).resolve().parent / "src_EAGLE")
    if sources not in sys.path:
        sys.path.insert(0, sources)
    from eagle import load_segmenter

    return load_segmenter(checkpoint, device, precision)
