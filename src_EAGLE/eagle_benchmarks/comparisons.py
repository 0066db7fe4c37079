"""Each part of training and evaluation, by the released algorithm and by ours, with a check that both agree."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
from eagle.errors import ConfigError, EagleError
from eagle.losses.patch_weights import patch_weights
from eagle.maps.crf.dense_crf import dense_crf_maps
from eagle.maps.crf.pool import CrfPool, require_pydensecrf
from eagle.maps.probe_maps import MapSettings
from eagle.models.key_cache import KeyCache, KeyCaches
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.eicue import eicue, laplacian_eigenvectors
from eagle_benchmarks.released import Released
from eagle_benchmarks.released_losses import correspondence, object_nce

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


# Largest relative difference of a loss that rounding can cause, by precision.
ROUNDING = {"float32": 1e-3, "float16 keys": 1e-2, "bfloat16": 5e-2}
# Smallest cosine allowed between an eigenvector and its released counterpart.
SAME_DIRECTION = 0.999
CLOSE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """The released computation and ours.

    Attributes:
        released: runs the released computation once; None if it cannot run on this machine.
        ours: runs our computation once.
        check: runs both and raises EagleError if they differ by more than rounding.
        close: releases what both use.
    """

    released: Callable[[], Any] | None
    ours: Callable[[], Any]
    check: Callable[[], None]
    close: Callable[[], None] = lambda: None


def backbone(case: Case) -> Comparison:
    """K of x, of x again as its positive, and of x̃; ours computes x once, and only the blurred images of x̃."""

    def released() -> list[Tensor]:
        return [case.released.keys(case.batch[view]) for view in ("img", "img", "img_aug")]

    def ours() -> tuple[Tensor, Tensor]:
        return case.segmenter._frozen_keys(case.batch)

    def check() -> None:
        keys, keys_aug = ours()
        expected = released()
        require_close("K", keys, expected[0])
        require_close("K of the augmented view", keys_aug, expected[2])

    return Comparison(released, ours, check)


def eigen(case: Case) -> Comparison:
    """Affinities, Laplacian and eigenvectors of both views."""
    codes, images = _codes(case), [case.batch["img"]] * 2

    def released() -> Tensor:
        return torch.cat([case.released.eigenvectors(code, img) for code, img in zip(codes, images, strict=True)])

    def ours() -> Tensor:
        return laplacian_eigenvectors(torch.cat(codes), torch.cat(images), case.segmenter.cfg.eigen_cluster)

    def check() -> None:
        cosine = (released() * ours()).sum(dim=1).abs().min()
        require("eigenvectors", float(cosine) > SAME_DIRECTION, f"smallest cosine {float(cosine):.6f}")

    return Comparison(released, ours, check)


def cue(case: Case) -> Comparison:
    """EiCue: clustering of the eigenvectors, and its loss."""
    case = _in_eval_mode(case)
    vectors, grid = _vectors(case)[0], _grid(case)
    codebook = case.segmenter.train_cluster_probe_eigen

    def released() -> tuple[Tensor, Tensor]:
        return case.released.cue(vectors, grid, case.released.segmenter.train_cluster_probe_eigen)

    def ours() -> tuple[Tensor, Tensor]:
        return eicue(vectors, grid, codebook)

    def check() -> None:
        (loss, labels), (expected, expected_labels) = ours(), released()
        require_close("L_eig", loss, expected)
        require("cue", bool((labels == expected_labels).all()), "labels differ")

    return Comparison(released, ours, check)


def correspondence_loss(case: Case) -> Comparison:
    """Correspondence distillation, forward and backward."""
    cfg = case.segmenter.cfg
    keys, keys_aug = case.segmenter._frozen_keys(case.batch)
    code, code_aug = (c.requires_grad_() for c in _codes(case))
    fixed = _draws(case)

    def released(**draws: Tensor) -> Tensor:
        positive, negative = correspondence(cfg, (keys, keys, keys_aug), (code, code, code_aug), **draws)
        return _backward(positive + negative)

    def ours(**draws: Tensor) -> Tensor:
        pairs = case.segmenter.correspondence_loss(keys, keys, keys_aug, code, code, code_aug, **draws)
        return _backward(pairs["pos_inter_loss"] + pairs["neg_inter_loss"].mean())

    def check() -> None:
        require_close("correspondence loss", ours(**fixed), released(**fixed))

    return Comparison(released, ours, check)


def object_loss(case: Case) -> Comparison:
    """Patch weights, prototypes and ObjNCE of one direction, forward and backward."""
    cfg, loss = case.segmenter.cfg, case.segmenter.object_nce_loss
    keys, _ = case.segmenter._frozen_keys(case.batch)
    tokens = [code.flatten(2).transpose(1, 2).flatten(0, 1) for code in _codes(case)]
    source, target = (F.normalize(view, dim=1).requires_grad_() for view in tokens)
    labels = eicue(_vectors(case)[0], _grid(case), case.segmenter.train_cluster_probe_eigen)[1]

    def released() -> Tensor:
        return _backward(object_nce(cfg, source, target, labels, keys))

    def ours() -> Tensor:
        return _backward(loss(source, target, labels, patch_weights(keys), cfg.eigen_cluster_out))

    return Comparison(released, ours, lambda: require_close("ObjNCE", ours(), released()))


def step(case: Case) -> Comparison:
    """The whole training step: forward, backward and optimisers."""
    return _step(case, "float32")


def cached_step(case: Case) -> Comparison:
    """The step, ours with the clean images' keys cached (cache_features), as after the first epoch."""
    return _step(_with_caches(case, views=False), "float16 keys")


def cached_views_step(case: Case) -> Comparison:
    """The step, ours with all keys cached (cache_features and cached_views), as after the first epochs."""
    return _step(_with_caches(case, views=True), "float16 keys")


def bfloat16_step(case: Case) -> Comparison:
    """The step, ours with precision=bf16-mixed and the released one in float32."""
    return _step(case, "bfloat16", lambda: torch.autocast(case.device.type, dtype=torch.bfloat16))


COMPARISONS: dict[str, Callable[[Case], Comparison]] = {
    "backbone": backbone,
    "eigen": eigen,
    "eicue": cue,
    "correspondence": correspondence_loss,
    "object_nce": object_loss,
    "step": step,
    "cached": cached_step,
    "views": cached_views_step,
    "bf16": bfloat16_step,
}


def _step(case: Case, precision: str, context: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Comparison:
    optimizers, optimizer = case.released.optimizers(), case.segmenter.configure_optimizers()

    def released() -> None:
        for one in optimizers:
            one.zero_grad()
        case.released.losses(case.batch, STEP)["loss/total"].backward()
        for one in optimizers:
            one.step()

    def ours() -> None:
        with context():
            total = case.segmenter.losses(case.batch, STEP)["loss/total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    def check() -> None:
        still = _in_eval_mode(case)
        draws = _draws(still) | {"eigenvectors": _vectors(still)}
        expected = still.released.losses(still.batch, STEP, **draws)
        with context():
            terms = still.segmenter.losses(still.batch, STEP, **draws)
        for name, value in expected.items():
            require_close(name, terms[name], value, ROUNDING[precision])

    return Comparison(released, ours, check)


def _with_caches(case: Case, views: bool) -> Case:
    """Fill caches with the batch's keys, those of the augmented views only if ``views``."""
    backbone = case.segmenter.net.model
    case.segmenter.use_key_caches(
        KeyCaches(KeyCache(backbone), KeyCache(backbone) if views else None, KeyCache(backbone))
    )
    case.segmenter._frozen_keys(case.batch)
    return case


def _in_eval_mode(case: Case) -> Case:
    """A copy without dropout, whose draws would differ: the released side runs three passes, ours two."""
    copied = deepcopy(case)
    copied.segmenter.eval()
    copied.released.segmenter.eval()
    return copied


def _codes(case: Case) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        keys, keys_aug = case.segmenter._frozen_keys(case.batch)
        return case.segmenter.net(keys), case.segmenter.net(keys_aug)


@torch.no_grad()
def _vectors(case: Case) -> tuple[Tensor, Tensor]:
    img = case.batch["img"]
    return case.segmenter._eigenvectors(img, img, *_codes(case))


def _grid(case: Case) -> tuple[int, int]:
    patch_size = case.segmenter.net.model.patch_size
    height, width = case.batch["img"].shape[2:]
    return height // patch_size, width // patch_size


def _draws(case: Case) -> dict[str, Any]:
    n_images, cfg = len(case.batch["img"]), case.segmenter.cfg
    generator = torch.Generator().manual_seed(cfg.seed)
    coords = torch.rand(3, n_images, cfg.feature_samples, cfg.feature_samples, 2, generator=generator) * 2 - 1
    perms = torch.arange(n_images).roll(1).expand(cfg.neg_samples, -1)
    return {"coords": coords.to(case.device), "perms": perms.to(case.device)}


def _backward(loss: Tensor) -> Tensor:
    loss.backward()
    return loss.detach()


def require_close(what: str, ours: Tensor, released: Tensor, tolerance: float = CLOSE) -> None:
    """Raise EagleError if the difference's norm relative to the released tensor's norm reaches ``tolerance``."""
    difference = float((ours.detach() - released.detach()).norm() / released.detach().norm().clamp(min=1e-6))
    require(what, difference < tolerance, f"relative difference {difference:.1e}")


def require(what: str, same: bool, difference: str) -> None:
    """Raise EagleError unless both sides agree."""
    if not same:
        raise EagleError(f"{what}: released and ours differ ({difference}); different computations are not timed")


ALPHA = 4.0
# Smallest share of pixels that must have the same class after the CRF.
SAME_CLASSES = 0.999


def crf(case: Case) -> Comparison:
    """The CRF of both probes' maps. The released side runs pydensecrf on each map, with one process per core.

    Without pydensecrf there is no released side.
    """
    case.segmenter.eval()
    img = case.batch["img"]
    maps = list(case.segmenter.probe_maps(MapSettings(ALPHA))(img).values())
    pool = CrfPool()

    def released() -> list[Tensor]:
        return dense_crf_maps(img, maps, "pydensecrf", pool)

    def ours() -> list[Tensor]:
        return dense_crf_maps(img, maps)

    def check() -> None:
        _require_same_classes(ours(), released())

    return Comparison(released if _has_pydensecrf() else None, ours, check, pool.close)


def evaluation(case: Case) -> Comparison:
    """Flip-averaged maps of both probes and their CRFs; the released side's CRF is as in ``crf``."""
    case.segmenter.eval()
    case.released.segmenter.eval()
    img = case.batch["img"]
    probes = case.segmenter.probe_maps(MapSettings(ALPHA))
    pool = CrfPool()

    def released() -> list[Tensor]:
        return dense_crf_maps(img, case.released.evaluation_maps(img, ALPHA), "pydensecrf", pool)

    def ours() -> list[Tensor]:
        return dense_crf_maps(img, list(probes(img).values()))

    def check() -> None:
        for our_map, their_map in zip(probes(img).values(), case.released.evaluation_maps(img, ALPHA), strict=True):
            require_close("log-probabilities", our_map, their_map)
        _require_same_classes(ours(), released())

    return Comparison(released if _has_pydensecrf() else None, ours, check, pool.close)


def _require_same_classes(ours: list[Tensor], released: list[Tensor]) -> None:
    for our_map, their_map in zip(ours, released, strict=True):
        same = (our_map.argmax(dim=1) == their_map.argmax(dim=1)).float().mean()
        require("CRF", float(same) >= SAME_CLASSES, f"{1 - float(same):.2%} of the pixels")


def _has_pydensecrf() -> bool:
    try:
        require_pydensecrf()
    except ConfigError:
        return False
    return True
