"""Maps of the probes: the one path from images to class scores, for training, evaluation, photographs and export.

Features are codes S for the probes of a segmenter, keys K for k-means on K. Images are padded to whole patches, their
features averaged with those of the mirror image, and large images split into windows. Scores of the patches are
resampled to pixels; refinement steps follow on the patch grid and on pixels (docs/method.md §9).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module  # noqa: TID251 modules of the tables of steps only
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.config.refinement import PATCH_STEPS, PIXEL_STEPS, UNREFINED, Refinement
from eagle.models.cluster_tree import ClusterCut
from eagle.models.probes import ClusterLookup, channel_log_softmax, upsampled

# Sharpness of the cluster probe's softmax, as released.
CLUSTER_ALPHA = 4.0
# In the name of a map of a further cut of the tree of clusters, before the number of clusters.
CUT_SIGN = "@"
# Smallest probability of a refined map before its logarithm.
LEAST_PROBABILITY = 1e-6

Features = Callable[[Tensor], Tensor]
# A linear map of B×C×h×w to other positions, the same for each channel.
Resample = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MapSettings:
    """How maps are computed.

    Attributes:
        alpha: sharpness of a cluster probe's softmax.
        window: side in pixels of the windows that larger images are split into; None processes every image whole.
        flip: average the features of an image and of its mirror image.
        refinement: steps of refinement.
        crf_backend: see ``dense_crf``.
    """

    alpha: float = CLUSTER_ALPHA
    window: int | None = None
    flip: bool = True
    refinement: Refinement = UNREFINED
    crf_backend: str = "auto"


class ProbeMaps(nn.Module):
    """Class scores of images at their own size, by map name, e.g. ``cluster`` and ``cluster+spectral``.

    Args:
        features: B×3×H×W → B×D×h×w, for H and W multiples of ``patch_size``.
        patch_size: side of a patch in pixels.
        probes: linear probes (1×1 convolutions), cluster probes and cuts of a tree by name. Of those whose name has an
            ``@``, there is only the map refined on patches, or without such steps the plain one.
        settings: see MapSettings.

    Attributes:
        n_clusters: channels of each map by name, from the plain maps to the most refined ones.

    Example:
        >>> import torch
        >>> from eagle import ClusterLookup
        >>> from eagle.config.refinement import refinement_of_name
        >>> from eagle.maps.probe_maps import MapSettings, ProbeMaps
        >>> colours = torch.nn.AvgPool2d(8)  # features of 8×8 patches
        >>> settings = MapSettings(refinement=refinement_of_name("spectral"))
        >>> maps = ProbeMaps(colours, 8, {"cluster": ClusterLookup(3, 5)}, settings)(torch.rand(1, 3, 30, 50))
        >>> {name: tuple(scores.shape) for name, scores in maps.items()}
        {'cluster': (1, 5, 30, 50), 'cluster+spectral': (1, 5, 30, 50)}
    """

    def __init__(
        self, features: nn.Module, patch_size: int, probes: Mapping[str, nn.Module], settings: MapSettings
    ) -> None:
        super().__init__()
        self.features = features
        self.patch_size = patch_size
        self.probes = nn.ModuleDict(probes)
        self.settings = settings
        latest = {name: n_scores(probe) for name, probe in probes.items()}
        self._plain = without_cuts(probes) if settings.refinement.on_patches else list(probes)
        self.n_clusters = {name: latest[name] for name in self._plain}
        for step in settings.refinement.steps:
            if step in PIXEL_STEPS:
                latest = {name: latest[name] for name in without_cuts(latest)}
            latest = {f"{name}+{step}": size for name, size in latest.items()}
            self.n_clusters |= latest

    @torch.no_grad()
    def patch_features(self, img: Tensor) -> Tensor:
        """Features of images of any size, B×3×H×W → B×D×⌈H/patch⌉×⌈W/patch⌉."""
        padded, window = padded_to_patches(img, self.patch_size), self.settings.window

        def view_features(view: Tensor) -> Tensor:
            return self.features(view) if window is None else windowed(self.features, view, window, self.patch_size)

        if not self.settings.flip:
            return view_features(padded)
        return (view_features(padded) + view_features(padded.flip(dims=[3])).flip(dims=[3])) / 2

    @torch.no_grad()
    def forward(self, img: Tensor) -> dict[str, Tensor]:
        """Maps of B×3×H×W normalised images, B×C×H×W: log-probabilities; refined ones are probabilities."""
        features, shown = self.patch_features(img), (img.shape[2], img.shape[3])
        covered = covered_size(features, self.patch_size)

        def resample(scores: Tensor) -> Tensor:
            return upsampled(scores, covered)[:, :, : shown[0], : shown[1]]

        alpha, refinement, suffix = self.settings.alpha, self.settings.refinement, ""
        maps = {name: log_probabilities(features, self.probes[name], alpha, resample) for name in self._plain}
        latest = dict(maps)
        if refinement.on_patches:
            probs = {name: patch_probabilities(features, probe, alpha) for name, probe in self.probes.items()}
        for step in refinement.on_patches:
            suffix += f"+{step}"
            probs = {name: _function(*PATCH_STEPS[step])(part, features) for name, part in probs.items()}
            latest = {name: resample(part) for name, part in probs.items()}
            maps |= {name + suffix: scores for name, scores in latest.items()}
        if refinement.on_pixels:
            names = without_cuts(latest)
            log_probs = [_logarithm(latest[name]) if refinement.on_patches else latest[name] for name in names]
            stages = refined_on_pixels(refinement.on_pixels, img, log_probs, self.settings.crf_backend)
            for step, refined in zip(refinement.on_pixels, stages, strict=True):
                suffix += f"+{step}"
                maps |= {name + suffix: scores for name, scores in zip(names, refined, strict=True)}
        return maps


def padded_to_patches(img: Tensor, patch_size: int) -> Tensor:
    """Repeat the last row and column of B×3×H×W until both sides are multiples of ``patch_size``."""
    height, width = img.shape[2:]
    return F.pad(img, (0, -width % patch_size, 0, -height % patch_size), mode="replicate")


def windowed(features: Features, img: Tensor, window: int, patch_size: int) -> Tensor:
    """Features of overlapping windows of an image, blended on the patch grid.

    Neighbouring windows overlap by half. A window's weight is highest in its middle and lowest at its border. Memory
    holds the features of one window and the whole map.

    Args:
        features: B×3×window×window → B×C×h×w.
        img: B×3×H×W, with H and W multiples of ``patch_size``.
        window: side in pixels, a multiple of ``patch_size``; an image side shorter than this is not split.
        patch_size: side of a patch in pixels.

    Returns:
        B×C×(H/patch_size)×(W/patch_size); an image no larger than a window is passed to ``features`` whole.
    """
    rows, columns = (list(_spans(side // patch_size, window // patch_size)) for side in img.shape[2:])
    if len(rows) == len(columns) == 1:
        return features(img)
    total, weights = img.new_zeros(()), img.new_zeros(1, 1, rows[-1].stop, columns[-1].stop)
    for row in rows:
        for column in columns:
            top, bottom, left, right = (patch_size * end for end in (row.start, row.stop, column.start, column.stop))
            part = features(img[:, :, top:bottom, left:right]).float()
            weight = _tent(part.shape[2], part)[:, None] * _tent(part.shape[3], part)
            if total.ndim == 0:
                total = part.new_zeros(*part.shape[:2], *weights.shape[2:])
            total[:, :, row, column] += part * weight
            weights[:, :, row, column] += weight
    return total / weights


def _spans(length: int, window: int) -> Iterator[slice]:
    """Overlapping spans of ``window`` patches that cover ``length`` patches; the last span ends at ``length``."""
    if length <= window:
        yield slice(0, length)
        return
    for start in range(0, length - window, max(window // 2, 1)):
        yield slice(start, start + window)
    yield slice(length - window, length)


def _tent(length: int, like: Tensor) -> Tensor:
    """``length`` triangular weights: 1 at both ends, one more for each patch towards the middle."""
    ramp = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    return torch.minimum(ramp, ramp.flip(0))


def cut_map(n_clusters: int) -> str:
    """The name of the map of a further cut of the tree of clusters."""
    return f"cluster{CUT_SIGN}{n_clusters}"


def without_cuts(map_names: Iterable[str]) -> list[str]:
    """The names of maps that are not of further cuts, in order."""
    return [name for name in map_names if CUT_SIGN not in name]


def linear_scores(features: Tensor, probe: nn.Module) -> Tensor:
    """Scores of the patches, B×D×h×w → B×C×h×w float32, whose argmax is the probe's class.

    They are linear in the features, so upsampling the scores equals upsampling the features. A cluster probe's are
    inner products with the centres: the norm of the features does not change which centre is nearest. Those of a cut of
    a tree are probabilities.
    """
    if isinstance(probe, ClusterCut):
        return probe.probabilities(features)
    if isinstance(probe, ClusterLookup):
        return probe.inner(features)
    with torch.autocast(features.device.type, enabled=False):
        return probe(features.float())


def patch_probabilities(features: Tensor, probe: nn.Module, alpha: float, steps: Sequence[str] = ()) -> Tensor:
    """Class probabilities of the patches after steps on the patch grid, B×D×h×w → B×C×h×w."""
    if isinstance(probe, ClusterCut):
        probs = probe.probabilities(features)
    elif isinstance(probe, ClusterLookup):
        probs = (alpha * probe.similarity(features)).softmax(dim=1)
    else:
        probs = linear_scores(features, probe).softmax(dim=1)
    for step in steps:
        probs = _function(*PATCH_STEPS[step])(probs, features)
    return probs


def log_probabilities(
    features: Tensor, probe: nn.Module, alpha: float, resample: Resample, steps: Sequence[str] = ()
) -> Tensor:
    """Log-probabilities of a probe at the positions of ``resample``, before any step on pixels.

    Args:
        features: B×D×h×w.
        probe: linear or cluster probe.
        alpha: sharpness of a cluster probe's softmax.
        resample: from the patch grid to pixels. Without steps, features are resampled; with steps, and for a cut of a
            tree, probabilities.
        steps: steps on the patch grid.

    Returns:
        B×C×H×W.
    """
    if steps or isinstance(probe, ClusterCut):
        return _logarithm(resample(patch_probabilities(features, probe, alpha, steps)))
    if isinstance(probe, ClusterLookup):
        return channel_log_softmax(alpha * probe.resampled_similarity(features, resample))
    return channel_log_softmax(resample(linear_scores(features, probe)))


def refined_on_pixels(
    steps: Sequence[str], img: Tensor, log_probs: list[Tensor], crf_backend: str = "auto"
) -> list[list[Tensor]]:
    """Probabilities of maps after each step on pixels.

    Args:
        steps: names of the steps, in order.
        img: B×3×H×W normalised images.
        log_probs: log-probabilities of the maps, B×C×h×w each.
        crf_backend: see ``dense_crf``.
    """
    stages: list[list[Tensor]] = []
    for step in steps:
        scores = [_logarithm(probs) for probs in stages[-1]] if stages else log_probs
        options = {"backend": crf_backend} if step == "crf" else {}
        stages.append(_function(*PIXEL_STEPS[step])(img, scores, **options))
    return stages


def _function(module: str, name: str) -> Callable[..., Any]:
    return getattr(import_module(module), name)


def _logarithm(probs: Tensor) -> Tensor:
    return probs.clamp(min=LEAST_PROBABILITY).log()


def covered_size(features: Tensor, patch_size: int) -> tuple[int, int]:
    """(height, width) in pixels covered by the patches of a feature map."""
    return features.shape[2] * patch_size, features.shape[3] * patch_size


def n_scores(probe: nn.Module) -> int:
    """Number of classes or clusters of a linear or cluster probe."""
    return probe.n_clusters if isinstance(probe, ClusterCut) else len(next(probe.parameters()))
