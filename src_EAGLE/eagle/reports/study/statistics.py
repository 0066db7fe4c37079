"""Mean, spread and paired differences of scores over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences over seeds, with the half width of its 95 % confidence interval (Student's t).

    The half width is infinite for a single pair.
    """

    mean: float
    half_width: float
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.mean) > self.half_width


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Compare two settings over the seeds that both have; None if they share no seed."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    return Difference(statistics.fmean(differences), half_width(differences), len(seeds))


def half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % confidence interval of the mean; infinite for one value."""
    if len(values) < 2:
        return float("inf")
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / len(values) ** 0.5
