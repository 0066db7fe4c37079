"""Mean-field inference on the CPU with the kernels of ``lattice_kernels.py``.

All maps of an image are one table of channels, padded to a multiple of ``LANES``. Each thread filters blocks of ``LANES``
channels on its own, so that threads meet only twice per iteration.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eagle.evaluation import lattice_kernels as kernels
from eagle.evaluation.compiled_lattice import CompiledLattice, empty_table
from eagle.evaluation.crf_settings import (
    BILATERAL_COMPAT,
    BILATERAL_SRGB,
    BILATERAL_SXY,
    GAUSSIAN_COMPAT,
    GAUSSIAN_SXY,
    ITERATIONS,
)
from eagle.evaluation.lattice_kernels import LANES, Floats, Longs

# Points per task outside the filters; their channels stay in a core's cache.
_POINTS = 1024


class CompiledCrf:
    """Context manager: the dense CRF of images of one size, on torch's number of threads.

    Args:
        height: of the images, pixels.
        width: of the images, pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        rows, columns = np.indices((height, width), dtype=np.float32).reshape(2, -1)
        self._positions = np.stack([columns, rows], axis=1)
        self._threads = ThreadPoolExecutor(torch.get_num_threads())
        self._gaussian = CompiledLattice(self._positions / np.float32(GAUSSIAN_SXY), self._map, normalise=True)

    def refine(self, bgr: Tensor, log_unaries: Sequence[Tensor]) -> list[Tensor]:
        """Refine all maps of one image.

        Args:
            bgr: H×W×3 uint8.
            log_unaries: C×H×W float32 negative unary energies each.

        Returns:
            C×H×W float32 probabilities each; views of one table.
        """
        colours = bgr.flatten(0, 1).float().numpy() / np.float32(BILATERAL_SRGB)
        features = np.concatenate([self._positions / np.float32(BILATERAL_SXY), colours], axis=1)
        bilateral = CompiledLattice(features, self._map, normalise=True)
        edges = np.cumsum([0, *(len(log_unary) for log_unary in log_unaries)])
        unary = empty_table(len(features), math.ceil(edges[-1] / LANES) * LANES)
        unary[:, edges[-1] :] = 0
        for log_unary, first in zip(log_unaries, edges, strict=False):
            unary[:, first : first + len(log_unary)] = log_unary.flatten(1).T.numpy()
        marginals = self._mean_field(unary, edges, bilateral)
        parts = np.split(marginals[:, : edges[-1]], edges[1:-1], axis=1)
        return [torch.from_numpy(part.T).view(-1, *bgr.shape[:2]) for part in parts]

    def _mean_field(self, unary: Floats, edges: Longs, bilateral: CompiledLattice) -> Floats:
        """Approximate marginals of the CRF, like the negative unary energies P×C."""
        values = empty_table(*unary.shape)
        values[:] = unary
        n_workers = min(torch.get_num_threads(), unary.shape[1] // LANES)
        tables = [(self._gaussian.new_table(), bilateral.new_table()) for _ in range(n_workers)]

        def add_messages(worker: int) -> None:
            smoothness, appearance = tables[worker]
            for start in range(worker * LANES, unary.shape[1], n_workers * LANES):
                self._gaussian.spread(values, start, smoothness)
                bilateral.spread(values, start, appearance)
                self._gaussian.add_slice(smoothness, GAUSSIAN_COMPAT, unary, values, start)
                bilateral.add_slice(appearance, BILATERAL_COMPAT, values, values, start)

        def softmax(rows: Floats) -> None:
            kernels.subtract_maxima(rows, edges)
            np.exp(rows, out=rows)
            kernels.divide_by_sums(rows, edges)

        chunks = [values[first : first + _POINTS] for first in range(0, len(values), _POINTS)]
        for _ in range(ITERATIONS):
            self._map(softmax, chunks)
            self._map(add_messages, range(n_workers))
        self._map(softmax, chunks)
        return values

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self._threads.map(function, items))

    def __enter__(self) -> "CompiledCrf":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
