"""Segment a photograph of any size into a label map of the same size, in bounded memory."""

from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.config.refinement import Refinement
from eagle.data.label_images import id_type
from eagle.data.loading.transforms import image_tensor, normalize
from eagle.evaluation.crf import dense_crf
from eagle.inference.probe_maps import SegmenterProbes, covered_size, log_probabilities
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.refinement import spectral_refinement

# Sharpness of the cluster probe's softmax before the CRF, as released.
CLUSTER_ALPHA = 4.0
# Larger photographs are shrunk to this many pixels for the CRF, whose memory grows with pixels × clusters.
CRF_PIXELS = 640 * 480
# Pixels of a label map computed at once.
BAND_PIXELS = 1 << 19


@dataclass(frozen=True)
class View:
    """How a photograph is passed to the model.

    Attributes:
        res: short side in pixels at the backbone's input; None keeps the photograph's size.
        window: side in pixels of the windows that larger images are split into; None for no windows.
        refinement: which refinements to run.
        crf_backend: see ``dense_crf``.
    """

    res: int | None
    window: int | None
    refinement: Refinement
    crf_backend: str


class PhotographSegmenter:
    """Compute label maps of photographs with one probe of a segmenter.

    Args:
        segmenter: in eval mode.
        probe: "cluster" or "linear".
        view: resolution, windows and refinement.
        fabric: sets device and precision.
    """

    def __init__(self, segmenter: LitUnsupervisedSegmenter, probe: str, view: View, fabric: Fabric) -> None:
        self._segmenter = segmenter
        self._probe = probe
        self._view = view
        self._fabric = fabric
        self._probes = SegmenterProbes(segmenter, CLUSTER_ALPHA, view.window)
        self._codes = fabric.setup_module(_Codes(self._probes).eval())

    @torch.no_grad()
    def __call__(self, photograph: Image.Image, size: tuple[int, int] | None = None) -> np.ndarray:
        """Cluster ids of an RGB photograph; class ids with the linear probe.

        Args:
            photograph: an image of any size.
            size: (H, W) of the result; None for the photograph's size.

        Returns:
            H×W uint8, or uint16 for more than 255 clusters.
        """
        seen = photograph if self._view.res is None else resized(photograph, self._view.res)
        code: Tensor = self._codes(self._tensor(seen)).float()
        covered = covered_size(code, self._segmenter.net.model.patch_size)
        shown, full = (seen.height, seen.width), size or (photograph.height, photograph.width)
        if not self._view.refinement.crf:
            return label_map(self._scores(code), covered, shown, full)
        refined = self._refined(photograph, code, covered, shown)
        shape = (refined.shape[2], refined.shape[3])
        return label_map(refined, shape, shape, full)

    def _tensor(self, image: Image.Image) -> Tensor:
        return self._fabric.to_device(normalize(image_tensor(image))[None])

    def _scores(self, code: Tensor) -> Tensor:
        """Per-class scores, 1×C×h×w: probabilities if spectrally refined.

        Unrefined ones are linear in the code, so upsampling scores equals upsampling codes.
        """
        segmenter = self._segmenter
        if self._view.refinement.spectral:
            return self._spectral(code)
        return segmenter.linear_logits(code) if self._probe == "linear" else segmenter.cluster_probe.inner(code)

    def _spectral(self, code: Tensor) -> Tensor:
        """Spectrally refined probabilities, 1×C×h×w."""
        if self._probe == "linear":
            logits = self._segmenter.linear_logits(code)
        else:
            logits = CLUSTER_ALPHA * self._segmenter.cluster_probe.similarity(code)
        return spectral_refinement(logits.softmax(dim=1), code)

    def _refined(
        self, photograph: Image.Image, code: Tensor, covered: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """Probabilities after the CRF, 1×C×H×W, at ``size`` or shrunk to at most CRF_PIXELS pixels."""
        shrink = min(1.0, (CRF_PIXELS / (size[0] * size[1])) ** 0.5)
        height, width = (max(1, round(side * shrink)) for side in size)
        small = photograph.resize((width, height), Image.Resampling.NEAREST)

        def resample(part: Tensor) -> Tensor:
            return sampled(part, covered, size, (height, width), slice(0, height))

        if self._view.refinement.spectral:
            logits = log_probabilities(resample(self._spectral(code)))
        elif self._probe == "linear":
            logits = resample(self._segmenter.linear_logits(code))
        else:
            logits = CLUSTER_ALPHA * self._segmenter.cluster_probe.resampled_similarity(code, resample)
        return dense_crf(self._tensor(small), F.log_softmax(logits, dim=1), self._view.crf_backend)


class _Codes(nn.Module):
    """Computes codes in a module's forward, because Fabric applies its precision only there."""

    def __init__(self, probes: SegmenterProbes) -> None:
        super().__init__()
        self.probes = probes

    def forward(self, img: Tensor) -> Tensor:
        return self.probes.code(img)


def resized(photograph: Image.Image, res: int) -> Image.Image:
    """Resize the short side to ``res`` pixels (nearest neighbour, as in training and evaluation)."""
    scale = res / min(photograph.size)
    width, height = (max(res, round(side * scale)) for side in photograph.size)
    return photograph.resize((width, height), Image.Resampling.NEAREST)


def label_map(scores: Tensor, covered: tuple[int, int], size: tuple[int, int], full: tuple[int, int]) -> np.ndarray:
    """Class with the highest score at every pixel of an upsampled map, computed in bands of rows.

    Args:
        scores: 1×C×h×w on the patch grid.
        covered: (height, width) in pixels that the grid covers, padding included.
        size: (height, width) in pixels of the unpadded image, in the upper left corner of the covered area.
        full: (H, W) of the result.

    Returns:
        H×W uint8, or uint16 for more than 255 classes.
    """
    ids = np.empty(full, dtype=id_type(scores.shape[1]))
    step = max(1, BAND_PIXELS // full[1])
    for top in range(0, full[0], step):
        band = slice(top, min(top + step, full[0]))
        ids[band] = sampled(scores, covered, size, full, band).argmax(dim=1)[0].cpu().numpy()
    return ids


def sampled(
    scores: Tensor, covered: tuple[int, int], size: tuple[int, int], full: tuple[int, int], rows: slice
) -> Tensor:
    """Bilinearly upsampled ``scores`` at some ``rows`` of the full map, 1×C×rows×W; arguments as in ``label_map``."""
    starts_and_stops = (rows, slice(0, full[1]))
    y, x = (
        (2 * torch.arange(part.start, part.stop, device=scores.device) + 1) / n * (shown / whole) - 1
        for part, n, shown, whole in zip(starts_and_stops, full, size, covered, strict=True)
    )
    positions = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)[None]
    return F.grid_sample(scores, positions, mode="bilinear", padding_mode="border", align_corners=False)
