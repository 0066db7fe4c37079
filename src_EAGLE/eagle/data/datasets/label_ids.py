"""From the ids that a dataset's files hold to class ids."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eagle.errors import DataError

_UNKNOWN = -2


class IdTable:
    """A lookup from non-negative file ids to class ids.

    Args:
        classes: class id, or VOID, by file id.
        otherwise: class id of every other file id, e.g. VOID; None refuses other ids.
    """

    def __init__(self, classes: Mapping[int, int], otherwise: int | None = None) -> None:
        self._last = max(classes) + 1
        self._table = np.full(self._last + 1, _UNKNOWN if otherwise is None else otherwise, dtype=np.int32)
        for file_id, class_id in classes.items():
            self._table[file_id] = class_id

    def __call__(self, ids: np.ndarray, path: Path) -> np.ndarray:
        """Class ids, int32, in the shape of ``ids``; raises DataError that names ``path`` for an id it may not hold."""
        # Ids outside the table share its last entry, which no file id has.
        mapped = self._table[np.where((ids < 0) | (ids > self._last), self._last, ids)]
        if (mapped == _UNKNOWN).any():
            raise DataError(
                f"{path}: label id {ids[mapped == _UNKNOWN][0]} is none of this dataset's; replace the file"
            )
        return mapped
