"""Segment photographs of any size into label maps of the same size, in batches and bounded memory."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.data.labels import id_type
from eagle.data.views import image_tensor, normalize
from eagle.errors import DataError
from eagle.inference.segmentation import Legend
from eagle.maps.probe_maps import (
    MapSettings,
    covered_size,
    linear_scores,
    log_probabilities,
    n_scores,
    patch_probabilities,
    refined_on_pixels,
)
from eagle.segmenter import LitUnsupervisedSegmenter

# Larger photographs are shrunk to this many pixels for the CRF, whose memory grows with pixels × clusters.
CRF_PIXELS = 640 * 480
# Pixels of a label map computed at once.
BAND_PIXELS = 1 << 19
# Probabilities (images × clusters × pixels) that the CRF refines at once.
CRF_VALUES = 1 << 26
# Most pixels at the model's input in one batch; a larger image is a batch of its own.
BATCH_PIXELS = 1 << 23
# The affinity and the Laplacian of this many patches take 1.2 GB; a full eigendecomposition (rarely needed) takes more.
MAX_PATCHES = 10_000

Item = TypeVar("Item")
Result = TypeVar("Result")


class Prepared(NamedTuple):
    """An RGB photograph of any size, and the same at the size of the model's input."""

    photograph: Image.Image
    seen: Image.Image


class PhotographSegmenter:
    """Compute label maps of photographs with one probe of a segmenter.

    Args:
        segmenter: in eval mode, on the fabric's device.
        probe: a linear or cluster probe, or a cut of a tree.
        legend: names and colours of the probe's ids.
        res: short side in pixels at the model's input; None keeps the photograph's size.
        settings: see MapSettings.
        fabric: sets device and precision.
    """

    def __init__(
        self,
        segmenter: LitUnsupervisedSegmenter,
        probe: nn.Module,
        legend: Legend,
        res: int | None,
        settings: MapSettings,
        fabric: Fabric,
    ) -> None:
        self.legend = legend
        self.res = res
        self.settings = settings
        self._fabric = fabric
        self.probe = fabric.to_device(probe)
        self._maps = segmenter.probe_maps(settings)

    def segmented(
        self, items: Iterable[tuple[Item, Prepared]], batch_size: int
    ) -> Iterator[tuple[Item, Prepared, np.ndarray]]:
        """Yield ``label_maps`` of photographs, in order, each with its item.

        Of ``batch_size`` successive photographs, those that the model sees at one size are computed together.

        Args:
            items: photographs from ``prepare``, each with what identifies it; of any sizes.
            batch_size: most photographs that are computed together.
        """
        rest = iter(items)
        while batch := list(islice(rest, batch_size)):
            places: dict[tuple[int, int], list[int]] = defaultdict(list)
            maps: dict[int, np.ndarray] = {}
            for i, (_, prepared) in enumerate(batch):
                places[prepared.seen.size].append(i)
            for (width, height), of_size in places.items():
                at_once = max(1, BATCH_PIXELS // (width * height))
                for together in (of_size[i : i + at_once] for i in range(0, len(of_size), at_once)):
                    maps |= zip(together, self.label_maps([batch[i][1] for i in together]), strict=True)
            yield from ((*item, maps[i]) for i, item in enumerate(batch))

    def prepare(self, photograph: Image.Image) -> Prepared:
        """Resize an RGB photograph to the model's input; needs no model, so that any thread can do it."""
        return Prepared(photograph, photograph if self.res is None else resized(photograph, self.res))

    @torch.no_grad()
    def label_maps(self, batch: Sequence[Prepared], code: Tensor | None = None) -> list[np.ndarray]:
        """Cluster ids of photographs that the model sees at one size; class ids with the linear probe.

        Args:
            batch: from ``prepare``; ``seen`` has the same size in all.
            code: ``codes`` of the batch; None computes them.

        Returns:
            For each photograph H×W uint8 in its size, or uint16 for more than 255 clusters.
        """
        code = self.codes(self.tensor([item.seen for item in batch])) if code is None else code
        covered, seen = covered_size(code, self._maps.patch_size), batch[0].seen
        shown = (seen.height, seen.width)
        steps = self.settings.refinement
        if steps.on_pixels:
            scores = self._refined([item.photograph for item in batch], code, covered, shown)
            covered = shown = (scores.shape[2], scores.shape[3])
        elif steps.on_patches:
            scores = patch_probabilities(code, self.probe, self.settings.alpha, steps.on_patches)
        else:
            scores = linear_scores(code, self.probe)
        fulls = [(item.photograph.height, item.photograph.width) for item in batch]
        return [label_map(scores[i : i + 1], covered, shown, full) for i, full in enumerate(fulls)]

    @torch.no_grad()
    def codes(self, img: Tensor) -> Tensor:
        """Codes of B×3×H×W normalised images of any size.

        Returns:
            B×dim×⌈H/patch⌉×⌈W/patch⌉ float32.
        """
        with self._fabric.autocast():
            return self._maps.patch_features(img).float()

    def tensor(self, images: Sequence[Image.Image]) -> Tensor:
        """Normalised B×3×H×W of images of one size; bytes travel to the device, which makes floats of them."""
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        return normalize(self._fabric.to_device(pixels).permute(0, 3, 1, 2).contiguous().float().div(255))

    def _refined(
        self, photographs: Sequence[Image.Image], code: Tensor, covered: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """Probabilities after steps on pixels, B×C×H×W, at ``size`` or shrunk to at most CRF_PIXELS pixels."""
        shrink = min(1.0, (CRF_PIXELS / (size[0] * size[1])) ** 0.5)
        height, width = (max(1, round(side * shrink)) for side in size)
        small = [photograph.resize((width, height), Image.Resampling.NEAREST) for photograph in photographs]
        steps, settings = self.settings.refinement, self.settings

        def resample(part: Tensor) -> Tensor:
            return sampled(part, covered, size, (height, width), slice(0, height))

        def refined(rows: slice) -> Tensor:
            scores = log_probabilities(code[rows], self.probe, settings.alpha, resample, steps.on_patches)
            img = self.tensor(small[rows])
            return refined_on_pixels(steps.on_pixels, img, [scores], settings.crf_backend)[-1][0]

        at_once = max(1, CRF_VALUES // (n_scores(self.probe) * height * width))
        return torch.cat([refined(slice(i, i + at_once)) for i in range(0, len(small), at_once)])


def resized(photograph: Image.Image, res: int) -> Image.Image:
    """Resize the short side to ``res`` pixels (nearest neighbour, as in training and evaluation)."""
    scale = res / min(photograph.size)
    width, height = (max(res, round(side * scale)) for side in photograph.size)
    return photograph.resize((width, height), Image.Resampling.NEAREST)


def whole_patch_input(photograph: Image.Image, res: int, patch_size: int) -> Tensor:
    """The model's input: short side ``res``, long side the nearest multiple of the patch size, nearest neighbour.

    The aspect changes by at most half a patch.

    Returns:
        1×3×H×W normalised.

    Raises:
        DataError: the photograph is so long that it has more than MAX_PATCHES patches.
    """
    short = min(photograph.size)
    columns, rows = (round(side * res / short / patch_size) for side in photograph.size)
    if columns * rows > MAX_PATCHES:
        raise DataError(f"{columns}×{rows} patches are more than {MAX_PATCHES}; lower res or crop the image")
    seen = photograph.resize((columns * patch_size, rows * patch_size), Image.Resampling.NEAREST)
    return normalize(image_tensor(seen))[None]


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
    """Bilinearly upsampled ``scores``, B×C×h×w, at some ``rows`` of the full map; other arguments as in ``label_map``.

    Returns:
        B×C×rows×W.
    """
    starts_and_stops = (rows, slice(0, full[1]))
    y, x = (
        (2 * torch.arange(part.start, part.stop, device=scores.device) + 1) / n * (shown / whole) - 1
        for part, n, shown, whole in zip(starts_and_stops, full, size, covered, strict=True)
    )
    positions = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2).expand(len(scores), -1, -1, -1)
    return F.grid_sample(scores, positions, mode="bilinear", padding_mode="border", align_corners=False)


def ordered(function: Callable[[Item], Result], items: Iterable[Item], n_threads: int, ahead: int) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of ``items``, computed in threads; at most ``ahead`` items are in work."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
