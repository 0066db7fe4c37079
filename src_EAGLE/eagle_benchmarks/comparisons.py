"""What is measured: for every part of the step the published way, our way, and a check that both compute the same."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eagle.errors import EagleError
from eagle.losses.patch_weights import patch_weights
from eagle.models.key_cache import KeyCache
from eagle.spectral.eicue import eicue, laplacian_eigenvectors
from eagle_benchmarks.case import STEP, Case
from eagle_benchmarks.published_losses import correspondence, object_nce

# Largest relative difference of a loss that rounding explains, by precision.
ROUNDING = {"float32": 1e-3, "float16 keys": 1e-2, "bfloat16": 5e-2}
# Least cosine between an eigenvector and its published counterpart.
SAME_DIRECTION = 0.999
CLOSE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """Two ways to compute the same.

    Attributes:
        published: runs the published way once; None where it cannot run here.
        ours: runs our way once.
        check: raises EagleError where the two differ by more than rounding.
        close: called when both are done with.
    """

    published: Callable[[], Any] | None
    ours: Callable[[], Any]
    check: Callable[[], None]
    close: Callable[[], None] = lambda: None


def backbone(case: Case) -> Comparison:
    """K of x, of x as its own positive, and of x̃; ours passes the blurred images only."""

    def published() -> list[Tensor]:
        return [case.published.keys(case.batch[view]) for view in ("img", "img", "img_aug")]

    def ours() -> tuple[Tensor, Tensor]:
        return case.segmenter._frozen_keys(case.batch)

    def check() -> None:
        keys, keys_aug = ours()
        expected = published()
        require_close("K", keys, expected[0])
        require_close("K of the augmented view", keys_aug, expected[2])

    return Comparison(published, ours, check)


def eigen(case: Case) -> Comparison:
    """Affinities, Laplacian and eigenvectors of both views."""
    codes, images = _codes(case), [case.batch["img"]] * 2

    def published() -> Tensor:
        return torch.cat([case.published.eigenvectors(code, img) for code, img in zip(codes, images, strict=True)])

    def ours() -> Tensor:
        return laplacian_eigenvectors(torch.cat(codes), torch.cat(images), case.segmenter.cfg.eigen_cluster)

    def check() -> None:
        cosine = (published() * ours()).sum(dim=1).abs().min()
        require("eigenvectors", float(cosine) > SAME_DIRECTION, f"smallest cosine {float(cosine):.6f}")

    return Comparison(published, ours, check)


def cue(case: Case) -> Comparison:
    """EiCue: clustering of the eigenvectors, with its loss."""
    case = _in_eval_mode(case)
    vectors, grid = _vectors(case)[0], _grid(case)
    codebook = case.segmenter.train_cluster_probe_eigen

    def published() -> tuple[Tensor, Tensor]:
        return case.published.cue(vectors, grid, case.published.segmenter.train_cluster_probe_eigen)

    def ours() -> tuple[Tensor, Tensor]:
        return eicue(vectors, grid, codebook)

    def check() -> None:
        (loss, labels), (expected, expected_labels) = ours(), published()
        require_close("L_eig", loss, expected)
        require("cue", bool((labels == expected_labels).all()), "labels differ")

    return Comparison(published, ours, check)


def correspondence_loss(case: Case) -> Comparison:
    """Correspondence distillation, forward and backward."""
    cfg = case.segmenter.cfg
    keys, keys_aug = case.segmenter._frozen_keys(case.batch)
    code, code_aug = (c.requires_grad_() for c in _codes(case))
    fixed = _draws(case)

    def published(**draws: Tensor) -> Tensor:
        positive, negative = correspondence(cfg, (keys, keys, keys_aug), (code, code, code_aug), **draws)
        return _backward(positive + negative)

    def ours(**draws: Tensor) -> Tensor:
        pairs = case.segmenter.correspondence_loss(keys, keys, keys_aug, code, code, code_aug, **draws)
        return _backward(pairs["pos_inter_loss"] + pairs["neg_inter_loss"].mean())

    def check() -> None:
        require_close("correspondence loss", ours(**fixed), published(**fixed))

    return Comparison(published, ours, check)


def object_loss(case: Case) -> Comparison:
    """Patch weights, prototypes and ObjNCE of one direction, forward and backward."""
    cfg, loss = case.segmenter.cfg, case.segmenter.object_nce_loss
    keys, _ = case.segmenter._frozen_keys(case.batch)
    tokens = [code.flatten(2).transpose(1, 2).flatten(0, 1) for code in _codes(case)]
    source, target = (F.normalize(view, dim=1).requires_grad_() for view in tokens)
    labels = eicue(_vectors(case)[0], _grid(case), case.segmenter.train_cluster_probe_eigen)[1]

    def published() -> Tensor:
        return _backward(object_nce(cfg, source, target, labels, keys))

    def ours() -> Tensor:
        return _backward(loss(source, target, labels, patch_weights(keys), cfg.eigen_cluster_out))

    return Comparison(published, ours, lambda: require_close("ObjNCE", ours(), published()))


def step(case: Case) -> Comparison:
    """The whole step: forward, backward and optimisers."""
    return _step(case, "float32")


def cached_step(case: Case) -> Comparison:
    """The same, ours with the clean images' keys cached (cache_features), as after the first epoch."""
    case.segmenter.use_key_cache(KeyCache(case.segmenter.net.model))
    case.segmenter._frozen_keys(case.batch)
    return _step(case, "float16 keys")


def bfloat16_step(case: Case) -> Comparison:
    """The same, ours with precision=bf16-mixed and the published one in float32."""
    return _step(case, "bfloat16", lambda: torch.autocast(case.device.type, dtype=torch.bfloat16))


COMPARISONS: dict[str, Callable[[Case], Comparison]] = {
    "backbone": backbone,
    "eigen": eigen,
    "eicue": cue,
    "correspondence": correspondence_loss,
    "object_nce": object_loss,
    "step": step,
    "cached": cached_step,
    "bf16": bfloat16_step,
}


def _step(case: Case, precision: str, context: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Comparison:
    optimizers, optimizer = case.published.optimizers(), case.segmenter.configure_optimizers()

    def published() -> None:
        for one in optimizers:
            one.zero_grad()
        case.published.losses(case.batch, STEP)["loss/total"].backward()
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
        expected = still.published.losses(still.batch, STEP, **draws)
        with context():
            terms = still.segmenter.losses(still.batch, STEP, **draws)
        for name, value in expected.items():
            require_close(name, terms[name], value, ROUNDING[precision])

    return Comparison(published, ours, check)


def _in_eval_mode(case: Case) -> Case:
    """A copy without dropout: it draws once a pass, so that three passes and two differ."""
    copied = deepcopy(case)
    copied.segmenter.eval()
    copied.published.segmenter.eval()
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


def require_close(what: str, ours: Tensor, published: Tensor, tolerance: float = CLOSE) -> None:
    """Raise EagleError where the norm of the difference is not small beside the published one's."""
    difference = float((ours.detach() - published.detach()).norm() / published.detach().norm().clamp(min=1e-6))
    require(what, difference < tolerance, f"relative difference {difference:.1e}")


def require(what: str, same: bool, difference: str) -> None:
    """Raise EagleError unless both sides computed the same."""
    if not same:
        raise EagleError(f"{what}: published and ours differ ({difference}); two different computations are not timed")
