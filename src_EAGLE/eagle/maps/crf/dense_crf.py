"""Dense CRF refinement of class probabilities (docs/method.md §9).

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (NIPS 2011): a
Gaussian and a bilateral pairwise term with Potts compatibility, ten mean-field iterations.
"""

import math
from collections.abc import Callable, Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle.config.schema import CRF_BACKENDS
from eagle.data.views import unnormalize
from eagle.errors import ConfigError, unknown_name_message
from eagle.maps.crf import tensor_lattice
from eagle.maps.crf.reference import (
    BILATERAL_SRGB,
    BILATERAL_SXY,
    GAUSSIAN_SXY,
    pydensecrf_refine,
    require_pydensecrf,
)
from eagle.models.probes import channel_log_softmax

# As released.
LEAST_LOG_PROBABILITY = math.log(1e-5)
# From an image's BGR bytes, H×W×3, and the negative unary energies of its maps, C×H×W, to their probabilities, C×H×W.
Refine = Callable[[Tensor, list[Tensor]], list[Tensor]]


def dense_crf(image: Tensor, log_probs: Tensor, backend: str = "auto") -> Tensor:
    """Refine class probabilities so that their borders follow the image's.

    Args:
        image: B×3×H×W, ImageNet-normalised.
        log_probs: B×C×h×w log-probabilities or logits; upsampled bilinearly to H×W.
        backend: "torch" is ours: tensor operations on a CUDA image's device, else compiled kernels on the CPU, with
            torch's number of threads. "pydensecrf" is the library of the released code, an optional extra, on one core
            of the CPU. "auto" is "torch", which is faster: see docs/performance.md.

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
    return dense_crf_maps(image, [log_probs], backend)[0]


@torch.no_grad()
def dense_crf_maps(image: Tensor, maps: Sequence[Tensor], backend: str = "auto") -> list[Tensor]:
    """``dense_crf`` for several maps of the same images, e.g. of both probes; each image's lattice is built once.

    Args:
        image: as for ``dense_crf``, as is what is raised.
        maps: B×C×h×w log-probabilities each; C, h and w may differ between maps.
        backend: as for ``dense_crf``.

    Returns:
        B×C×H×W float32 probabilities per map, on the image's device.
    """
    if backend not in CRF_BACKENDS:
        raise ConfigError(unknown_name_message("CRF backend", backend, CRF_BACKENDS))
    _check_shapes(image, maps)
    on_gpu = image.is_cuda and backend != "pydensecrf"
    bgr = bgr_bytes(image).to(image.device if on_gpu else "cpu")
    if backend == "pydensecrf":
        require_pydensecrf()
        refine: Refine = _by_pydensecrf
    elif on_gpu:
        refine = by_lattices(bgr, tensor_lattice)
    else:
        # numba loads a compiler: 130 MB and half a second.
        from eagle.maps.crf import compiled

        refine = by_lattices(bgr, compiled)
    return [probabilities.to(image.device) for probabilities in refine_images(bgr, maps, refine)]


def _check_shapes(image: Tensor, maps: Sequence[Tensor]) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image must be B×3×H×W, not {tuple(image.shape)}")
    for log_probs in maps:
        if log_probs.ndim != 4 or len(log_probs) != len(image):
            raise ValueError(f"log_probs must be {len(image)}×C×h×w, like the image, not {tuple(log_probs.shape)}")


def bgr_bytes(image: Tensor) -> Tensor:
    """B×3×H×W normalised image → B×H×W×3 BGR uint8, truncated like torchvision's ToPILImage."""
    rgb = (unnormalize(image.float()) * 255).clamp(0, 255).to(torch.uint8)
    return rgb.flip(1).permute(0, 2, 3, 1).contiguous()


def log_unary(log_probs: Tensor, size: Sequence[int]) -> Tensor:
    """Negative unary energy: log of the upsampled probabilities, floored at log 1e-5, B×C×H×W."""
    finite = log_probs.float().clamp(-1e4, 1e4)  # the log of a one-hot map has −inf, which interpolation turns into NaN
    if finite.shape[2:] != tuple(size):
        finite = F.interpolate(finite, size=tuple(size), mode="bilinear", align_corners=False)
    return channel_log_softmax(finite).clamp_(min=LEAST_LOG_PROBABILITY)


def refine_images(bgr: Tensor, maps: Sequence[Tensor], refine: Refine) -> list[Tensor]:
    """Refine maps image by image on the device of ``bgr``, B×H×W×3."""
    size = bgr.shape[1:3]
    results = [torch.empty(*log_probs.shape[:2], *size, device=bgr.device) for log_probs in maps]
    for i, pixels in enumerate(bgr):
        log_unaries = [log_unary(log_probs[i : i + 1].to(bgr.device), size)[0] for log_probs in maps]
        for result, probabilities in zip(results, refine(pixels, log_unaries), strict=True):
            result[i] = probabilities
    return results


def _by_pydensecrf(bgr: Tensor, log_unaries: Sequence[Tensor]) -> list[Tensor]:
    return [torch.from_numpy(pydensecrf_refine(bgr.numpy(), -log_unary.numpy())) for log_unary in log_unaries]


def by_lattices(images: Tensor, module: ModuleType) -> Refine:
    """Refine images of the size and on the device of ``images`` with the lattice and mean field of a module."""
    rows, columns = (torch.arange(n, device=images.device) for n in images.shape[1:3])
    positions = torch.cartesian_prod(rows, columns).flip(1).float()  # (x, y)
    gaussian = module.Lattice(positions / GAUSSIAN_SXY, normalise=True)

    def refine(bgr: Tensor, log_unaries: list[Tensor]) -> list[Tensor]:
        features = torch.cat([positions / BILATERAL_SXY, bgr.flatten(0, 1).float() / BILATERAL_SRGB], dim=1)
        return module.mean_field(log_unaries, gaussian, module.Lattice(features, normalise=True))

    return refine
