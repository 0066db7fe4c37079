"""Work in threads beside the thread that computes, and batches of photographs of one size."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from eagle.inference.photograph import Prepared

Item = TypeVar("Item")
Result = TypeVar("Result")

# Most pixels at the model's input in one batch; a larger image is a batch of its own.
BATCH_PIXELS = 1 << 23
# Pixels of photographs that wait for partners of their size.
WAITING_PIXELS = 1 << 26


def ordered(function: Callable[[Item], Result], items: Iterable[Item], n_threads: int, ahead: int) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of ``items``, computed in threads; at most ``ahead`` items are in work."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def batches(
    items: Iterable[Item], batch_size: int, prepared: Callable[[Item], Prepared], most_waiting: int = WAITING_PIXELS
) -> Iterator[list[Item]]:
    """Group items whose photographs the model sees at one size, at most ``batch_size`` and ``BATCH_PIXELS`` together.

    Args:
        items: in any mix of sizes.
        batch_size: most items of a batch.
        prepared: an item's photograph.
        most_waiting: pixels of incomplete batches, beyond which the one with the most pixels is yielded as it is.
    """
    waiting: dict[tuple[int, int], list[Item]] = {}
    pixels: dict[tuple[int, int], int] = {}
    for item in items:
        size = prepared(item).seen.size
        waiting.setdefault(size, []).append(item)
        pixels[size] = pixels.get(size, 0) + _area(prepared(item).photograph.size)
        if len(waiting[size]) >= min(batch_size, BATCH_PIXELS // _area(size)):
            del pixels[size]
            yield waiting.pop(size)
        elif sum(pixels.values()) > most_waiting:
            largest = max(pixels, key=pixels.__getitem__)
            del pixels[largest]
            yield waiting.pop(largest)
    yield from waiting.values()


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
