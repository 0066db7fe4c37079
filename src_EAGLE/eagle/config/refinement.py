"""The keys ``refine`` and ``run_crf``: how the maps of a probe are refined, and what refined maps are called."""

from typing import Any, NamedTuple

REFINEMENTS = ("auto", "none", "crf", "spectral", "both")
SPECTRAL_SUFFIX, CRF_SUFFIX = "+spectral", "+crf"


class Refinement(NamedTuple):
    """Steps of refinement; with both, the CRF refines the spectrally refined map."""

    spectral: bool
    crf: bool

    @property
    def suffix(self) -> str:
        """What the name of the most refined map ends in."""
        return SPECTRAL_SUFFIX * self.spectral + CRF_SUFFIX * self.crf


def refinement(cfg: Any) -> Refinement:
    """Read a configuration with ``refine`` and ``run_crf``; ``run_crf`` counts only if ``refine`` is auto."""
    if cfg.refine == "auto":
        return Refinement(spectral=False, crf=cfg.run_crf)
    return refinement_of_name(cfg.refine)


def refinement_of_name(name: str) -> Refinement:
    """The steps of "none", "crf", "spectral" or "both"."""
    return Refinement(name in ("spectral", "both"), name in ("crf", "both"))
