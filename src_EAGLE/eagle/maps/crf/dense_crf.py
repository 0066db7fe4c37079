"""Dense CRF refinement of class probabilities (docs/method.md §9).

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (NIPS 2011): a
Gaussian and a bilateral pairwise term with Potts compatibility, ten mean-field iterations.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle.config.schema import CRF_BACKENDS
from eagle.data.views import unnormalize
from eagle.errors import ConfigError, unknown_name_message
from eagle.maps.crf.pool import (
    BILATERAL_COMPAT,
    BILATERAL_SRGB,
    BILATERAL_SXY,
    GAUSSIAN_COMPAT,
    GAUSSIAN_SXY,
    ITERATIONS,
    pydensecrf_maps,
)
from eagle.maps.crf.tensor_lattice import PermutohedralLattice


def dense_crf(image: Tensor, log_probs: Tensor, backend: str = "auto", processes: int | None = 0) -> Tensor:
    """Refine class probabilities so that their borders follow the image's.

    Args:
        image: B×3×H×W, ImageNet-normalised.
        log_probs: B×C×h×w log-probabilities or logits; upsampled bilinearly to H×W.
        backend: "torch" is ours: tensor operations on a CUDA image's device, else compiled kernels on the CPU, with
            torch's number of threads. "pydensecrf" is the library of the released code, on the CPU, an optional extra.
            "auto" is "torch", which is at least as fast: see docs/performance.md.
        processes: of pydensecrf; None for one per usable core, 0 to compute in this process. Ignored by torch.

    Returns:
        B×C×H×W float32 probabilities on the image's device.

    Raises:
        ConfigError: the backend is unknown, or pydensecrf cannot be loaded.
        ValueError: the shapes do not match.

    Example:
        >>> import torch
        >>> from eagle import dense_crf
        >>> log_probs = torch.randn(1, 3, 8, 8).log_softmax(dim=1)
        >>> dense_crf(torch.zeros(1, 3, 32, 32), log_probs).shape
        torch.Size([1, 3, 32, 32])
    """
    return dense_crf_maps(image, [log_probs], backend, processes)[0]


@torch.no_grad()
def dense_crf_maps(
    image: Tensor, maps: Sequence[Tensor], backend: str = "auto", processes: int | None = 0
) -> list[Tensor]:
    """``dense_crf`` for several maps of the same images, e.g. of both probes; each image's lattice is built once.

    Args:
        image: as for ``dense_crf``, as is what is raised.
        maps: B×C×h×w log-probabilities each; C, h and w may differ between maps.
        backend: as for ``dense_crf``.
        processes: as for ``dense_crf``.

    Returns:
        B×C×H×W float32 probabilities per map, on the image's device.
    """
    if backend not in CRF_BACKENDS:
        raise ConfigError(unknown_name_message("CRF backend", backend, CRF_BACKENDS))
    _check_shapes(image, maps)
    bgr = _bgr_bytes(image)
    if backend != "pydensecrf" and image.is_cuda:
        return _by_torch(bgr, [log_probs.to(image.device) for log_probs in maps])
    bgr, maps = bgr.cpu(), [log_probs.cpu() for log_probs in maps]
    refined = _by_pydensecrf(bgr, maps, processes) if backend == "pydensecrf" else _compiled(bgr, maps)
    return [probabilities.to(image.device) for probabilities in refined]


def _check_shapes(image: Tensor, maps: Sequence[Tensor]) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image must be B×3×H×W, not {tuple(image.shape)}")
    for log_probs in maps:
        if log_probs.ndim != 4 or len(log_probs) != len(image):
            raise ValueError(f"log_probs must be {len(image)}×C×h×w, like the image, not {tuple(log_probs.shape)}")


def _bgr_bytes(image: Tensor) -> Tensor:
    """B×3×H×W normalised image → B×H×W×3 BGR uint8, truncated like torchvision's ToPILImage."""
    rgb = (unnormalize(image.float()) * 255).clamp(0, 255).to(torch.uint8)
    return rgb.flip(1).permute(0, 2, 3, 1).contiguous()


def _log_unary(log_probs: Tensor, size: torch.Size) -> Tensor:
    """Negative unary energy: log of the upsampled probabilities, floored at 1e-5, B×C×H×W."""
    finite = log_probs.float().clamp(-1e4, 1e4)  # the log of a one-hot map has −inf, which interpolation turns into NaN
    upsampled = F.interpolate(finite, size=tuple(size), mode="bilinear", align_corners=False)
    return upsampled.softmax(1).clamp(1e-5, 1).log()


def _by_pydensecrf(bgr: Tensor, maps: Sequence[Tensor], processes: int | None) -> list[Tensor]:
    n_images = len(bgr)
    log_unaries = [_log_unary(log_probs, bgr.shape[1:3]) for log_probs in maps]
    jobs = [(bgr[i].numpy(), -log_unary[i].numpy()) for log_unary in log_unaries for i in range(n_images)]
    refined = pydensecrf_maps(jobs, processes)
    starts = range(0, len(jobs), n_images)
    return [torch.stack([torch.from_numpy(array) for array in refined[i : i + n_images]]) for i in starts]


def _compiled(bgr: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    # numba loads a compiler: 130 MB and half a second.
    from eagle.maps.crf.compiled import CompiledCrf

    height, width = bgr.shape[1:3]
    refined = [log_probs.new_empty(*log_probs.shape[:2], height, width, dtype=torch.float32) for log_probs in maps]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        crf = CompiledCrf(height, width, threads)
        for i, colours in enumerate(bgr):
            log_unaries = [_log_unary(log_probs[i : i + 1], bgr.shape[1:3])[0] for log_probs in maps]
            crf.refine(colours, log_unaries, [out[i] for out in refined])
    return refined


def _by_torch(bgr: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """For a GPU; each step is a few tensor operations."""
    _, height, width, _ = bgr.shape
    log_unaries = [_log_unary(log_probs, bgr.shape[1:3]) for log_probs in maps]
    rows, columns = (torch.arange(n, device=bgr.device) for n in (height, width))
    positions = torch.cartesian_prod(rows, columns).flip(1).float()  # (x, y)
    gaussian = PermutohedralLattice(positions / GAUSSIAN_SXY, normalise=True)
    refined = [torch.empty_like(log_unary) for log_unary in log_unaries]
    for i, colours in enumerate(bgr.flatten(1, 2).float()):
        features = torch.cat([positions / BILATERAL_SXY, colours / BILATERAL_SRGB], dim=1)
        bilateral = PermutohedralLattice(features, normalise=True)
        for log_unary, out in zip(log_unaries, refined, strict=True):
            table = log_unary[i].flatten(1).T.contiguous()
            out[i] = _mean_field(table, gaussian, bilateral).T.view_as(out[i])
    return refined


def _mean_field(log_unary: Tensor, gaussian: PermutohedralLattice, bilateral: PermutohedralLattice) -> Tensor:
    """Approximate marginals of the CRF, P×C, from its negative unary energies, P×C."""
    marginals = log_unary.softmax(1)
    for _ in range(ITERATIONS):
        smoothness = gaussian.filter(marginals)
        appearance = bilateral.filter(marginals)
        marginals = (log_unary + GAUSSIAN_COMPAT * smoothness + BILATERAL_COMPAT * appearance).softmax(1)
    return marginals
