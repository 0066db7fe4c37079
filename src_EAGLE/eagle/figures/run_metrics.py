"""Read the ``metrics.csv`` of a finished or running training run."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eagle.errors import DataError

FILE_NAME = "metrics.csv"
STEP = "step"
# Runs of older versions also logged the epoch.
NOT_DRAWN = (STEP, "epoch")


@dataclass(frozen=True)
class Curve:
    """Logged values of one quantity.

    Attributes:
        steps: optimiser steps done when each value was logged, ascending.
        values: one per entry of ``steps``.
    """

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class RunMetrics:
    """The name of a run, and its curves by logged name."""

    name: str
    curves: dict[str, Curve]

    def n_steps(self) -> int:
        """Optimiser steps done at the last logged value."""
        return max(int(curve.steps[-1]) for curve in self.curves.values())


def read_runs(run_dirs: Sequence[Path]) -> list[RunMetrics]:
    """Read several runs in order. Folders with equal names also get the names of their parents.

    Raises:
        DataError: as in ``read_run``.
    """
    distinct = list({run_dir.resolve(): run_dir for run_dir in run_dirs})
    return [read_run(run_dir, name) for run_dir, name in zip(distinct, _shortest_distinct_names(distinct), strict=True)]


def read_run(run_dir: Path, name: str) -> RunMetrics:
    """Read the curves of a run folder; empty columns are left out.

    Raises:
        DataError: ``metrics.csv`` is missing, was not written by a training run, or has no values yet.
    """
    path = run_dir / FILE_NAME
    if not path.is_file():
        raise DataError(f"{run_dir}: not the folder of a training run: it has no {FILE_NAME}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            # A run in progress may have written half of its last row.
            rows = [row for row in table if (row.get(STEP) or "").isdigit()]
            header = [*(table.fieldnames or [])]
        curves = {column: _curve(rows, column) for column in header if column not in NOT_DRAWN}
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: not the metrics of a training run ({error})") from error
    if header and STEP not in header:
        raise DataError(f"{path}: not the metrics of a training run (it has no column '{STEP}')")
    curves = {column: curve for column, curve in curves.items() if len(curve.values)}
    if not curves:
        raise DataError(f"{path}: no values yet; a run writes the first after scalar_log_freq steps")
    return RunMetrics(name, curves)


def _curve(rows: Sequence[dict[str, str]], column: str) -> Curve:
    logged = [row for row in rows if row[column]]
    steps = [int(row[STEP]) + 1 for row in logged]  # the file counts steps from 0
    return Curve(np.array(steps, dtype=int), np.array([float(row[column]) for row in logged]))


def _shortest_distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest trailing parts of the paths that are all different."""
    depth = 1
    while True:
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
        depth += 1
