"""Each part of training and evaluation, by the released algorithm and by ours, with a check that both agree."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as TF

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.datamodule import HOST_ENTRIES
from eagle.data.views import normalize
from eagle.errors import ConfigError, EagleError
from eagle.maps.crf.dense_crf import dense_crf_maps
from eagle.maps.crf.reference import require_pydensecrf
from eagle.maps.probe_maps import CLUSTER_ALPHA, MapSettings
from eagle.models.key_cache import KeyCache, KeyCaches
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.eicue import laplacian_eigenvectors
from eagle_benchmarks.released import Released, crfs

# A step after step_schedulers, so that the object-centric loss is on.
STEP = 500
N_CLASSES = 27
SMOOTH_GRIDS = (4, 12, 40)
# Largest difference that rounding can cause, where it is not CLOSE: keys in float16, a step in bfloat16.
CLOSE = 1e-3
ROUNDING = {"cached": 1e-2, "views": 1e-2, "bf16": 5e-2}

# Computes one part once; returns what must agree, by name.
Side = Callable[[], dict[str, Tensor]]
Sides = tuple[Side, Side]


@dataclass
class Case:
    """The input of a measurement.

    Attributes:
        segmenter: our model, in training mode; the released algorithm uses a copy of its weights.
        batch: a batch as returned by the loader; half of the images are blurred.
        draws: ``coords`` and ``perms`` of the correspondence loss; empty to draw them in each run.
    """

    segmenter: LitUnsupervisedSegmenter
    batch: dict[str, Tensor]
    draws: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.released = Released(deepcopy(self.segmenter))


def make_case(model_type: str, device: torch.device, batch_size: int, res: int) -> Case:
    """Build a case with random weights and images, the same in every process."""
    torch.manual_seed(0)
    cfg = validated(TrainConfig, {"model_type": model_type, "pretrained_weights": "random"})
    segmenter = LitUnsupervisedSegmenter(N_CLASSES, cfg).to(device).train()
    rgb = smooth_pictures(batch_size, res)
    changed = torch.arange(batch_size) < batch_size // 2
    blurred = torch.where(changed[:, None, None, None], TF.gaussian_blur(rgb, [3, 3], [1.0, 1.0]), rgb)
    blocks = torch.randint(-1, N_CLASSES, (batch_size, 1, 8, 8)).float()
    batch = {
        "img": normalize(rgb),
        "img_aug": normalize(blurred),
        "label": F.interpolate(blocks, (res, res), mode="nearest")[:, 0].long(),
        "index": torch.arange(batch_size),
        "view": torch.arange(batch_size),
        "changed": changed,
    }
    return Case(segmenter, {name: v if name in HOST_ENTRIES else v.to(device) for name, v in batch.items()})


def smooth_pictures(n: int, res: int) -> Tensor:
    """Random pictures n×3×res×res in [0, 1]; unlike noise they have segments, at several scales."""
    generator = torch.Generator().manual_seed(0)
    layers = [
        F.interpolate(torch.rand(n, 3, size, size, generator=generator), (res, res), mode="bicubic")
        for size in SMOOTH_GRIDS
    ]
    return torch.stack(layers).mean(dim=0).clamp(0, 1)


def sides(section: str, case: Case) -> dict[str, Side]:
    """The computations ``released`` and ``ours`` of a part; without pydensecrf, the released CRF is missing."""
    released, ours = PARTS[section](case)
    if section in ON_EVALUATION_IMAGES:
        try:
            require_pydensecrf()
        except ConfigError:
            return {"ours": ours}
    return {"released": released, "ours": ours}


def check(section: str, case: Case) -> None:
    """Compute both sides once, from the same sampled points and eigenvectors and without dropout.

    Raises:
        EagleError: they differ by more than rounding.
    """
    loss, img = case.segmenter.correspondence_loss, case.batch["img"]
    draws = {"coords": loss.random_coords(len(img), img.device), "perms": loss.random_perms(len(img), img.device)}
    still = Case(deepcopy(case.segmenter).eval(), case.batch, draws)
    results = {side: run() for side, run in sides(section, still).items()}
    for name, released in results.get("released", {}).items():
        off = difference(name, results["ours"][name].detach(), released.detach())
        if off >= ROUNDING.get(section, CLOSE):
            raise EagleError(f"{name}: released and ours differ by {off:.1e}; different computations are not timed")


def difference(name: str, ours: Tensor, released: Tensor) -> float:
    """Norm of the difference relative to the released norm.

    Eigenvectors: 1 − the smallest |cosine|. Maps after a CRF: share of pixels with another class.
    """
    if name == "eigenvectors":
        return 1 - float((ours * released).sum(dim=1).abs().min())
    if name.startswith("CRF"):
        return float((ours.argmax(dim=1) != released.argmax(dim=1)).float().mean())
    return float((ours - released).norm() / released.norm().clamp(min=1e-6))


def backbone(case: Case) -> Sides:
    """K of x, of x again as its positive, and of x̃; ours computes x once, and only the blurred images of x̃."""
    views = {"K": "img", "K of the positive": "img", "K of the augmented view": "img_aug"}

    def ours() -> dict[str, Tensor]:
        keys, keys_aug = case.segmenter._frozen_keys(case.batch)
        return dict(zip(views, (keys, keys, keys_aug), strict=True))

    return lambda: {name: case.released.keys(case.batch[view]) for name, view in views.items()}, ours


def eigen(case: Case) -> Sides:
    """Affinities, Laplacian and eigenvectors of both views."""
    codes, img, k = _codes(case), case.batch["img"], case.segmenter.cfg.eigen_cluster
    return (
        lambda: {"eigenvectors": torch.cat([case.released.eigenvectors(code, img) for code in codes])},
        lambda: {"eigenvectors": laplacian_eigenvectors(torch.cat(codes), torch.cat([img, img]), k)},
    )


def step(case: Case, context: AbstractContextManager[Any] = nullcontext()) -> Sides:  # noqa: B008 it has no state
    """The whole training step: forward, backward and optimisers; our forward pass runs in ``context``."""
    optimizers, optimizer = case.released.optimizers(), case.segmenter.configure_optimizers()
    draws = case.draws | {"eigenvectors": _vectors(case)} if case.draws else {}

    def released() -> dict[str, Tensor]:
        for one in optimizers:
            one.zero_grad()
        terms = case.released.losses(case.batch, STEP, **draws)
        terms["loss/total"].backward()
        for one in optimizers:
            one.step()
        return terms

    def ours() -> dict[str, Tensor]:
        with context:
            terms = case.segmenter.losses(case.batch, STEP, **draws)
        optimizer.zero_grad()
        terms["loss/total"].backward()
        optimizer.step()
        return terms

    return released, ours


def cached_step(case: Case, views: bool = False) -> Sides:
    """The step, ours with cached keys as after the first epochs: of clean images, and of the views if ``views``."""
    model = case.segmenter.net.model
    caches = KeyCaches(KeyCache(model), KeyCache(model) if views else None, KeyCache(model))
    case.segmenter.key_caches = caches
    case.segmenter._frozen_keys(case.batch)
    return step(case)


def crf(case: Case) -> Sides:
    """The CRFs of both maps."""
    img, probes = case.batch["img"], case.segmenter.eval().probe_maps(MapSettings())
    maps = list(probes(img).values())
    return lambda: _named_crfs(crfs(img, maps)), lambda: _named_crfs(dense_crf_maps(img, maps))


def evaluation(case: Case) -> Sides:
    """Flip-averaged maps of both probes and their CRFs."""
    img, probes = case.batch["img"], case.segmenter.eval().probe_maps(MapSettings())
    names = ("linear log-probabilities", "cluster log-probabilities")
    case.released.segmenter.eval()

    def released() -> dict[str, Tensor]:
        maps = case.released.evaluation_maps(img, CLUSTER_ALPHA)
        return dict(zip(names, maps, strict=True)) | _named_crfs(crfs(img, maps))

    def ours() -> dict[str, Tensor]:
        maps = list(probes(img).values())
        return dict(zip(names, maps, strict=True)) | _named_crfs(dense_crf_maps(img, maps))

    return released, ours


PARTS: dict[str, Callable[[Case], Sides]] = {
    "backbone": backbone,
    "eigen": eigen,
    "step": step,
    "cached": cached_step,
    "views": partial(cached_step, views=True),
    # precision=bf16-mixed, and the released step in float32
    "bf16": lambda case: step(case, torch.autocast(case.segmenter.device.type, dtype=torch.bfloat16)),
    "crf": crf,
    "evaluation": evaluation,
}
ON_EVALUATION_IMAGES = ("crf", "evaluation")


def _named_crfs(refined: Sequence[Tensor]) -> dict[str, Tensor]:
    return dict(zip(("CRF of linear", "CRF of cluster"), refined, strict=True))


def _codes(case: Case) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        keys, keys_aug = case.segmenter._frozen_keys(case.batch)
        return case.segmenter.net(keys), case.segmenter.net(keys_aug)


@torch.no_grad()
def _vectors(case: Case) -> tuple[Tensor, Tensor]:
    img = case.batch["img"]
    return case.segmenter._eigenvectors(img, img, *_codes(case))
