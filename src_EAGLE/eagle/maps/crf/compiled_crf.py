"""Mean-field inference on the CPU with the kernels of ``lattice_kernels.py``.

Channels are kept in blocks of ``LANES``. All maps of an image share its lattices, and each thread filters blocks on its
own, so that threads meet only twice per iteration.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eagle.maps.crf import lattice_kernels as kernels
from eagle.maps.crf.compiled_lattice import CompiledLattice, empty
from eagle.maps.crf.lattice_kernels import LANES, Floats
from eagle.maps.crf.settings import (
    BILATERAL_COMPAT,
    BILATERAL_SRGB,
    BILATERAL_SXY,
    GAUSSIAN_COMPAT,
    GAUSSIAN_SXY,
    ITERATIONS,
)

# Points of the softmax at a time; their channels stay in a core's cache.
_POINTS = 1024
_POINTS_PER_TASK = 16 * _POINTS


class CompiledCrf:
    """Context manager: the dense CRF of images of one size, on torch's number of threads.

    Args:
        height: of the images, pixels.
        width: of the images, pixels.

    Attributes:
        gaussian: lattice of the positions.
    """

    def __init__(self, height: int, width: int) -> None:
        rows, columns = np.indices((height, width), dtype=np.float32).reshape(2, -1)
        self._positions = np.stack([columns, rows], axis=1)
        self._threads = ThreadPoolExecutor(torch.get_num_threads())
        self.gaussian = CompiledLattice(self._positions / np.float32(GAUSSIAN_SXY), self._map, normalise=True)

    def refine(self, bgr: Tensor, log_unaries: Sequence[Tensor], refined: Sequence[Tensor]) -> None:
        """Refine all maps of one image.

        Args:
            bgr: H×W×3 uint8.
            log_unaries: C×H×W float32 negative unary energies each.
            refined: receives the C×H×W float32 probabilities of each map.
        """
        unaries = [self._blocks(log_unary) for log_unary in log_unaries]
        marginals = self._mean_field(unaries, self.bilateral(bgr))
        for blocks, out in zip(marginals, refined, strict=True):
            self._copy_channels(blocks, out)

    def bilateral(self, bgr: Tensor) -> CompiledLattice:
        """Lattice of one image's positions and colours, H×W×3."""
        colours = bgr.flatten(0, 1).float().numpy() / np.float32(BILATERAL_SRGB)
        features = np.concatenate([self._positions / np.float32(BILATERAL_SXY), colours], axis=1)
        return CompiledLattice(features, self._map, normalise=True)

    def _mean_field(self, unaries: list[Floats], bilateral: CompiledLattice) -> list[Floats]:
        """Approximate marginals of the CRF, like the maps' negative unary energies n×P×LANES."""
        n_points = len(self._positions)
        values = [empty(*unary.shape) for unary in unaries]
        blocks = [pair for unary, value in zip(unaries, values, strict=True) for pair in zip(unary, value, strict=True)]
        for unary, value in blocks:
            value[:] = unary
        tables: SimpleQueue[tuple[Floats, Floats]] = SimpleQueue()
        for _ in range(min(torch.get_num_threads(), len(blocks))):
            tables.put((self.gaussian.new_table(), bilateral.new_table()))

        def add_messages(block: tuple[Floats, Floats]) -> None:
            unary, value = block
            smoothness, appearance = free = tables.get()
            self.gaussian.spread(value, smoothness)
            bilateral.spread(value, appearance)
            self.gaussian.add_slice(smoothness, GAUSSIAN_COMPAT, unary, value)
            bilateral.add_slice(appearance, BILATERAL_COMPAT, value, value)
            tables.put(free)

        def softmax(task: int) -> None:
            for first in range(task, min(task + _POINTS_PER_TASK, n_points), _POINTS):
                for value in values:
                    chunk = value[:, first : first + _POINTS]
                    kernels.subtract_maxima(chunk)
                    np.exp(chunk, out=chunk)
                    kernels.divide_by_sums(chunk)

        tasks = range(0, n_points, _POINTS_PER_TASK)
        for _ in range(ITERATIONS):
            self._map(softmax, tasks)
            self._map(add_messages, blocks)
        self._map(softmax, tasks)
        return values

    def _blocks(self, channels: Tensor) -> Floats:
        """C×H×W energies as n×P×LANES blocks, padded with channels of probability 0."""
        parts = channels.flatten(1).split(LANES)
        blocks = empty(len(parts), len(self._positions), LANES)
        blocks[-1] = -np.inf

        def put(i: int) -> None:
            blocks[i, :, : len(parts[i])] = parts[i].T.numpy()

        self._map(put, range(len(parts)))
        return blocks

    def _copy_channels(self, blocks: Floats, out: Tensor) -> None:
        """The inverse of ``_blocks``."""
        parts = out.flatten(1).split(LANES)

        def put(i: int) -> None:
            parts[i].numpy()[:] = blocks[i].T[: len(parts[i])]

        self._map(put, range(len(parts)))

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self._threads.map(function, items))

    def __enter__(self) -> "CompiledCrf":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
