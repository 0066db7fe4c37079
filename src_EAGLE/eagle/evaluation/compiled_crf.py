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
from eagle.evaluation.compiled_lattice import CompiledLattice, empty
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
            C×H×W float32 probabilities each.
        """
        colours = bgr.flatten(0, 1).float().numpy() / np.float32(BILATERAL_SRGB)
        features = np.concatenate([self._positions / np.float32(BILATERAL_SXY), colours], axis=1)
        bilateral = CompiledLattice(features, self._map, normalise=True)
        order = bilateral.by_vertex()
        blocks = [self._blocks(log_unary.flatten(1), order) for log_unary in log_unaries]
        marginals = self._mean_field(blocks, self._gaussian.take(order), bilateral.take(order))
        return [
            self._channels(own, len(log_unary), order).view_as(log_unary)
            for own, log_unary in zip(marginals, log_unaries, strict=True)
        ]

    def _mean_field(
        self, unaries: list[Floats], gaussian: CompiledLattice, bilateral: CompiledLattice
    ) -> list[Floats]:
        """Approximate marginals of the CRF, like the maps' negative unary energies n×P×LANES."""
        n_points = unaries[0].shape[1]
        values = [empty(*unary.shape) for unary in unaries]
        blocks = [pair for unary, value in zip(unaries, values, strict=True) for pair in zip(unary, value, strict=True)]
        for unary, value in blocks:
            value[:] = unary
        n_workers = min(torch.get_num_threads(), len(blocks))
        tables = [(gaussian.new_table(), bilateral.new_table()) for _ in range(n_workers)]

        def add_messages(worker: int) -> None:
            smoothness, appearance = tables[worker]
            for unary, value in blocks[worker::n_workers]:
                gaussian.spread(value, smoothness)
                bilateral.spread(value, appearance)
                gaussian.add_slice(smoothness, GAUSSIAN_COMPAT, unary, value)
                bilateral.add_slice(appearance, BILATERAL_COMPAT, value, value)

        def softmax(worker: int) -> None:
            for first in range(worker * _POINTS, n_points, n_workers * _POINTS):
                for value in values:
                    chunk = value[:, first : first + _POINTS]
                    kernels.subtract_maxima(chunk)
                    np.exp(chunk, out=chunk)
                    kernels.divide_by_sums(chunk)

        for _ in range(ITERATIONS):
            self._map(softmax, range(n_workers))
            self._map(add_messages, range(n_workers))
        self._map(softmax, range(n_workers))
        return values

    def _blocks(self, channels: Tensor, order: Longs) -> Floats:
        """C×P energies as n×P×LANES blocks, the points in another order, with channels of probability 0 as padding."""
        blocks = empty(math.ceil(len(channels) / LANES), len(order), LANES)
        blocks[-1] = -np.inf

        def put(c: int) -> None:
            blocks[c // LANES, :, c % LANES] = channels[c].numpy()[order]

        self._map(put, range(len(channels)))
        return blocks

    def _channels(self, blocks: Floats, n_channels: int, order: Longs) -> Tensor:
        """C×P from n×P×LANES blocks, the points in the order before ``_blocks``."""
        channels = empty(n_channels, len(order))

        def put(c: int) -> None:
            channels[c, order] = blocks[c // LANES, :, c % LANES]

        self._map(put, range(n_channels))
        return torch.from_numpy(channels)

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self._threads.map(function, items))

    def __enter__(self) -> "CompiledCrf":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
