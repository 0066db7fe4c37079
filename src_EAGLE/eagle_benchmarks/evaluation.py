"""Comparisons for the evaluation of both probes with CRF, and for the CRF alone."""

from torch import Tensor

from eagle.errors import ConfigError
from eagle.maps.crf.dense_crf import dense_crf_maps
from eagle.maps.crf.pool import CrfPool, require_pydensecrf
from eagle.maps.probe_maps import MapSettings
from eagle_benchmarks.case import Case
from eagle_benchmarks.comparisons import Comparison, require, require_close

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
