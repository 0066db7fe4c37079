"""Dense CRF refinement of class probabilities, the published evaluation's last step.

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (NIPS 2011): a
Gaussian and a bilateral pairwise term with Potts compatibility, ten mean-field iterations.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle.data.loading.transforms import unnormalize
from eagle.errors import ConfigError, unknown_name_message
from eagle.evaluation.crf_pool import CrfPool
from eagle.evaluation.crf_settings import (
    BILATERAL_COMPAT,
    BILATERAL_SRGB,
    BILATERAL_SXY,
    GAUSSIAN_COMPAT,
    GAUSSIAN_SXY,
    ITERATIONS,
)
from eagle.evaluation.permutohedral import PermutohedralLattice

BACKENDS = ("auto", "pydensecrf", "torch")


def dense_crf(image: Tensor, log_probs: Tensor, backend: str = "auto", pool: CrfPool | None = None) -> Tensor:
    """Refine a map of class probabilities so that its borders follow the image's.

    Args:
        image: B×3×H×W, normalised with ImageNet's mean and standard deviation.
        log_probs: B×C×h×w log-probabilities or logits; upsampled bilinearly to H×W.
        backend: "torch" computes on the image's device (on the CPU for devices other than CPU and CUDA);
            "pydensecrf" is the published library, on the CPU, an optional extra; "auto" is torch everywhere: with two
            free cores it took two thirds of the time of two pydensecrf processes. Where other programs compete for
            the cores torch's threads wait for each other, and pydensecrf with a pool can be the faster one.
        pool: processes for pydensecrf; without one it runs in this process. The torch backend does not use it.

    Returns:
        B×C×H×W float32 probabilities on the image's device.

    Raises:
        ConfigError: the backend is unknown, or is pydensecrf and that cannot be loaded.
        ValueError: the shapes do not fit each other.
    """
    return dense_crf_maps(image, [log_probs], backend, pool)[0]


@torch.no_grad()
def dense_crf_maps(
    image: Tensor, maps: Sequence[Tensor], backend: str = "auto", pool: CrfPool | None = None
) -> list[Tensor]:
    """Refine several maps of the same images, e.g. both probes', with one lattice per image.

    Args:
        image: as for ``dense_crf``.
        maps: B×C×h×w log-probabilities each; C, h and w may differ.
        backend: as for ``dense_crf``.
        pool: as for ``dense_crf``.

    Returns:
        One B×C×H×W tensor of float32 probabilities per map, on the image's device.

    Raises:
        ConfigError: as ``dense_crf``.
        ValueError: as ``dense_crf``.
    """
    if backend not in BACKENDS:
        raise ConfigError(unknown_name_message("CRF backend", backend, BACKENDS))
    _check_shapes(image, maps)
    device = image.device if backend != "pydensecrf" and image.is_cuda else torch.device("cpu")
    bgr = _bgr_bytes(image).to(device)
    log_unaries = [_log_unary(log_probs.to(device), bgr.shape[1:3]) for log_probs in maps]
    refined = _by_pydensecrf(bgr, log_unaries, pool) if backend == "pydensecrf" else _by_torch(bgr, log_unaries)
    return [probabilities.to(image.device) for probabilities in refined]


def _check_shapes(image: Tensor, maps: Sequence[Tensor]) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image must be B×3×H×W, not {tuple(image.shape)}")
    for log_probs in maps:
        if log_probs.ndim != 4 or len(log_probs) != len(image):
            raise ValueError(f"log_probs must be {len(image)}×C×h×w, as the image, not {tuple(log_probs.shape)}")


def _bgr_bytes(image: Tensor) -> Tensor:
    """B×H×W×3 uint8 of a B×3×H×W normalised image, truncated as torchvision's ToPILImage does."""
    rgb = (unnormalize(image.float()) * 255).clamp(0, 255).to(torch.uint8)
    return rgb.flip(1).permute(0, 2, 3, 1).contiguous()


def _log_unary(log_probs: Tensor, size: torch.Size) -> Tensor:
    """B×C×H×W log of the upsampled probabilities, floored at 1e-5: the negative of the unary energy."""
    upsampled = F.interpolate(log_probs.float(), size=tuple(size), mode="bilinear", align_corners=False)
    return upsampled.softmax(1).clamp(1e-5, 1).log()


def _by_pydensecrf(bgr: Tensor, log_unaries: list[Tensor], pool: CrfPool | None) -> list[Tensor]:
    pool = pool or CrfPool(processes=0)
    n_images = len(bgr)
    jobs = [(bgr[i].numpy(), -log_unary[i].numpy()) for log_unary in log_unaries for i in range(n_images)]
    refined = pool.refine(jobs)
    starts = range(0, len(jobs), n_images)
    return [torch.stack([torch.from_numpy(array) for array in refined[i : i + n_images]]) for i in starts]


def _by_torch(bgr: Tensor, log_unaries: list[Tensor]) -> list[Tensor]:
    _, height, width, _ = bgr.shape
    grid = torch.meshgrid(
        torch.arange(height, device=bgr.device), torch.arange(width, device=bgr.device), indexing="ij"
    )
    places = torch.stack([grid[1], grid[0]], dim=-1).flatten(0, 1).float()
    gaussian = PermutohedralLattice(places / GAUSSIAN_SXY, normalise=True)
    refined = [torch.empty_like(log_unary) for log_unary in log_unaries]
    for i, colours in enumerate(bgr.flatten(1, 2).float()):
        features = torch.cat([places / BILATERAL_SXY, colours / BILATERAL_SRGB], dim=1)
        bilateral = PermutohedralLattice(features, normalise=True)
        for log_unary, out in zip(log_unaries, refined, strict=True):
            table = log_unary[i].flatten(1).T.contiguous()
            out[i] = _mean_field(table, gaussian, bilateral).T.view_as(out[i])
    return refined


def _mean_field(log_unary: Tensor, gaussian: PermutohedralLattice, bilateral: PermutohedralLattice) -> Tensor:
    """The approximate marginals, P×C, of a CRF whose negative unary energies are given as P×C."""
    marginals = log_unary.softmax(1)
    for _ in range(ITERATIONS):
        smoothness = gaussian.filter(marginals)
        appearance = bilateral.filter(marginals)
        marginals = (log_unary + GAUSSIAN_COMPAT * smoothness + BILATERAL_COMPAT * appearance).softmax(1)
    return marginals
