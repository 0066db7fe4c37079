"""The numbers of a finished or running run, read from its ``metrics.csv``."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eagle.errors import DataError

FILE_NAME = "metrics.csv"
STEP = "step"
# Runs of older versions count epochs too.
NOT_DRAWN = (STEP, "epoch")


@dataclass(frozen=True)
class Curve:
    """Logged values of one quantity.

    Attributes:
        batches: batches done when each was logged, ascending.
        values: as many.
    """

    batches: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class RunMetrics:
    """A run's name and its curves by the names under which they were logged."""

    name: str
    curves: dict[str, Curve]

    def n_batches(self) -> int:
        """Batches done at the last logged value."""
        return max(int(curve.batches[-1]) for curve in self.curves.values())


def read_runs(run_dirs: Sequence[Path]) -> list[RunMetrics]:
    """The runs in the order given; folders of the same name are told apart by those above them.

    Raises:
        DataError: see ``read_run``.
    """
    distinct = list({run_dir.resolve(): run_dir for run_dir in run_dirs})
    return [read_run(run_dir, name) for run_dir, name in zip(distinct, _shortest_distinct_names(distinct), strict=True)]


def read_run(run_dir: Path, name: str) -> RunMetrics:
    """The curves of a run folder; columns that hold no number are left out.

    Raises:
        DataError: the folder holds no ``metrics.csv``, or that is not one of a run, or it has no rows yet.
    """
    path = run_dir / FILE_NAME
    if not path.is_file():
        raise DataError(f"{run_dir}: not the folder of a training run, it holds no {FILE_NAME}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            # A running run may be in the middle of its last row.
            rows = [row for row in table if (row.get(STEP) or "").isdigit()]
            header = [*(table.fieldnames or [])]
        curves = {column: _curve(rows, column) for column in header if column not in NOT_DRAWN}
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: not the metrics of a training run ({error})") from error
    if header and STEP not in header:
        raise DataError(f"{path}: not the metrics of a training run (it has no column '{STEP}')")
    curves = {column: curve for column, curve in curves.items() if len(curve.values)}
    if not curves:
        raise DataError(f"{path}: holds no values yet; a run writes the first after scalar_log_freq batches")
    return RunMetrics(name, curves)


def _curve(rows: Sequence[dict[str, str]], column: str) -> Curve:
    logged = [row for row in rows if row[column]]
    batches = [int(row[STEP]) + 1 for row in logged]  # a step is the number of a batch, from 0
    return Curve(np.array(batches, dtype=int), np.array([float(row[column]) for row in logged]))


def _shortest_distinct_names(paths: Sequence[Path]) -> list[str]:
    """As many of the last folders' names as it takes to tell the paths apart."""
    depth = 1
    while True:
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
        depth += 1
