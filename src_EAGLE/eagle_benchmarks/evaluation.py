"""The evaluation of both probes with CRF, and the CRF alone."""

from torch import Tensor

from eagle.errors import ConfigError
from eagle.evaluation.crf import dense_crf_maps
from eagle.evaluation.crf_pool import CrfPool, pydensecrf_worker
from eagle.inference.probe_maps import SegmenterProbes
from eagle_benchmarks.case import Case
from eagle_benchmarks.comparisons import Comparison, require, require_close

ALPHA = 4.0
# Share of pixels with the same class after the CRF.
SAME_CLASSES = 0.999


def crf(case: Case) -> Comparison:
    """The CRF of both probes' maps alone; the published one by pydensecrf, map by map, a process for each core.

    Without pydensecrf there is no published side.
    """
    case.segmenter.eval()
    img = case.batch["img"]
    maps = list(SegmenterProbes(case.segmenter, ALPHA)(img).values())
    pool = CrfPool()

    def published() -> list[Tensor]:
        return dense_crf_maps(img, maps, "pydensecrf", pool)

    def ours() -> list[Tensor]:
        return dense_crf_maps(img, maps)

    def check() -> None:
        if _has_pydensecrf():
            _require_same_classes(ours(), published())

    return Comparison(published if _has_pydensecrf() else None, ours, check, pool.close)


def evaluation(case: Case) -> Comparison:
    """Flip-averaged maps of both probes and their CRFs; the published one as in ``crf``."""
    case.segmenter.eval()
    case.published.segmenter.eval()
    img = case.batch["img"]
    probes = SegmenterProbes(case.segmenter, ALPHA)
    pool = CrfPool()

    def published() -> list[Tensor]:
        return dense_crf_maps(img, case.published.evaluation_maps(img, ALPHA), "pydensecrf", pool)

    def ours() -> list[Tensor]:
        return dense_crf_maps(img, list(probes(img).values()))

    def check() -> None:
        for our_map, their_map in zip(probes(img).values(), case.published.evaluation_maps(img, ALPHA), strict=True):
            require_close("log-probabilities", our_map, their_map)
        if _has_pydensecrf():
            _require_same_classes(ours(), published())

    return Comparison(published if _has_pydensecrf() else None, ours, check, pool.close)


def _require_same_classes(ours: list[Tensor], published: list[Tensor]) -> None:
    for our_map, their_map in zip(ours, published, strict=True):
        same = (our_map.argmax(dim=1) == their_map.argmax(dim=1)).float().mean()
        require("CRF", float(same) >= SAME_CLASSES, f"{1 - float(same):.2%} of the pixels")


def _has_pydensecrf() -> bool:
    try:
        pydensecrf_worker()
    except ConfigError:
        return False
    return True
