"""The input of every measurement: one model for both sides and one batch of images, in memory."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as TF

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.loading.datamodule import HOST_ENTRIES
from eagle.data.loading.transforms import normalize
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle_benchmarks.released import Released

# A step after step_schedulers, so that the object-centric loss is on.
STEP = 500
SMOOTH_GRIDS = (4, 12, 40)


@dataclass
class Case:
    """The input of a measurement.

    Attributes:
        cfg: the benchmark's configuration.
        device: device of both sides.
        segmenter: our model, in training mode.
        released: the released algorithm with a copy of the weights.
        batch: a batch as returned by the loader; half of the images are blurred.
    """

    cfg: Any
    device: torch.device
    segmenter: LitUnsupervisedSegmenter
    released: Released
    batch: dict[str, Tensor]


def make_case(cfg: Any, batch_size: int | None = None, res: int | None = None) -> Case:
    """Build a case from the benchmark's configuration; the arguments override its batch size and resolution."""
    device = chosen_device(cfg)
    torch.manual_seed(cfg.seed)
    training = {
        "model_type": cfg.model_type,
        "dino_patch_size": cfg.dino_patch_size,
        "pretrained_weights": cfg.pretrained_weights,
        "seed": cfg.seed,
    }
    segmenter = LitUnsupervisedSegmenter(cfg.n_classes, validated(TrainConfig, training)).to(device).train()
    batch = _batch(cfg, batch_size or default_batch_size(cfg), res or cfg.res)
    batch = {name: value if name in HOST_ENTRIES else value.to(device) for name, value in batch.items()}
    return Case(cfg, device, segmenter, Released(deepcopy(segmenter)), batch)


def chosen_device(cfg: Any) -> torch.device:
    """The device chosen by the key ``device``."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device)


def default_batch_size(cfg: Any) -> int:
    """The key ``batch_size``, or the device's default."""
    return cfg.batch_size or (32 if chosen_device(cfg).type == "cuda" else 8)


def smooth_pictures(n: int, res: int, seed: int) -> Tensor:
    """Random pictures n×3×res×res in [0, 1]; unlike noise they have segments, at several scales."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(torch.rand(n, 3, size, size, generator=generator), (res, res), mode="bicubic")
        for size in SMOOTH_GRIDS
    ]
    return torch.stack(layers).mean(dim=0).clamp(0, 1)


def _batch(cfg: Any, batch_size: int, res: int) -> dict[str, Tensor]:
    rgb = smooth_pictures(batch_size, res, cfg.seed)
    changed = torch.arange(batch_size) < batch_size // 2
    blurred = torch.where(changed[:, None, None, None], TF.gaussian_blur(rgb, [3, 3], [1.0, 1.0]), rgb)
    blocks = torch.randint(-1, cfg.n_classes, (batch_size, 1, 8, 8)).float()
    label = F.interpolate(blocks, (res, res), mode="nearest")[:, 0].long()
    return {
        "img": normalize(rgb),
        "img_aug": normalize(blurred),
        "label": label,
        "index": torch.arange(batch_size),
        "view": torch.arange(batch_size),
        "changed": changed,
    }
