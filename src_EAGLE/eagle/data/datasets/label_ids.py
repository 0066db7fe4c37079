"""Map the ids stored in label files to class ids."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eagle.errors import DataError

_UNKNOWN = -2


class IdTable:
    """Lookup table from non-negative file ids to class ids.

    Args:
        classes: class id, or VOID, by file id.
        otherwise: class id of all other file ids, e.g. VOID; None to raise an error for them.
    """

    def __init__(self, classes: Mapping[int, int], otherwise: int | None = None) -> None:
        self._last = max(classes) + 1
        self._table = np.full(self._last + 1, _UNKNOWN if otherwise is None else otherwise, dtype=np.int32)
        for file_id, class_id in classes.items():
            self._table[file_id] = class_id

    def __call__(self, ids: np.ndarray, path: Path) -> np.ndarray:
        """Map ``ids`` to int32 class ids of the same shape; raises DataError that names ``path`` for an unknown id."""
        # Ids outside the table use its last entry, which belongs to no file id.
        mapped = self._table[np.where((ids < 0) | (ids > self._last), self._last, ids)]
        if (mapped == _UNKNOWN).any():
            raise DataError(
                f"{path}: label id {ids[mapped == _UNKNOWN][0]} does not exist in this dataset; replace the file"
            )
        return mapped
