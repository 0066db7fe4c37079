"""The keys ``refine`` and ``run_crf``: which steps refine the maps of a probe, and what refined maps are called.

A step is a function. One on the patch grid takes class probabilities, B×C×h×w, and the features of the patches,
B×D×h×w, and returns probabilities. One on pixels takes normalised images, B×3×H×W, and a list of log-probabilities of
several maps, B×C×H×W each, and returns the list of their probabilities.
"""

from itertools import combinations
from typing import Any, NamedTuple

from eagle.errors import ConfigError, unknown_name_message

# Steps in the order in which they apply, by the module and the name of their function.
PATCH_STEPS = {
    "spectral": ("eagle.spectral.refinement", "spectral_refinement"),
}
PIXEL_STEPS = {
    "crf": ("eagle.maps.crf.dense_crf", "dense_crf_maps"),
}

_STEPS = (*PATCH_STEPS, *PIXEL_STEPS)
BOTH = "both"
# "none", then every combination of steps, e.g. "spectral+crf", which is also called "both".
NAMED_REFINEMENTS = (
    "none",
    *("+".join(steps) for n in range(len(_STEPS)) for steps in combinations(_STEPS, n + 1)),
    BOTH,
)
# Values of the key; "auto" is for commands with run_crf.
REFINEMENTS = ("auto", *NAMED_REFINEMENTS)


class Refinement(NamedTuple):
    """Names of the steps that refine a map, in order."""

    steps: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        """What the name of the most refined map ends in."""
        return "".join(f"+{step}" for step in self.steps)

    @property
    def on_patches(self) -> tuple[str, ...]:
        """The steps on the patch grid."""
        return tuple(step for step in self.steps if step in PATCH_STEPS)

    @property
    def on_pixels(self) -> tuple[str, ...]:
        """The steps on pixels, which follow those on the patch grid."""
        return tuple(step for step in self.steps if step in PIXEL_STEPS)


UNREFINED = Refinement()
# What docs/results.md recommends for masks of photographs.
RECOMMENDED = "spectral"


def refinement(cfg: Any, auto: str = "none") -> Refinement:
    """Read a configuration with ``refine`` and ``run_crf``.

    If ``refine`` is auto, the steps are those of ``auto``, and the CRF with ``run_crf``.
    """
    if cfg.refine != "auto":
        return refinement_of_name(cfg.refine)
    steps = refinement_of_name(auto).steps
    return Refinement((*steps, "crf") if cfg.run_crf else steps)


def refinement_of_name(name: str) -> Refinement:
    """The steps of one of ``NAMED_REFINEMENTS``; raises ConfigError for another name."""
    if name not in NAMED_REFINEMENTS:
        raise ConfigError(unknown_name_message("refinement", str(name), NAMED_REFINEMENTS))
    if name == BOTH:
        return Refinement(("spectral", "crf"))
    return Refinement(() if name == "none" else tuple(name.split("+")))
