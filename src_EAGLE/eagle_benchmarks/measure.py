"""Times of alternating runs, peak memory, lower bounds and the throughput of data loading."""

import ctypes
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import functional as TF

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.loading.datamodule import SegmentationDataModule
from eagle.maps.crf.dense_crf import _bgr_bytes
from eagle.maps.crf.pool import ITERATIONS
from eagle.maps.probe_maps import MapSettings
from eagle.processes import follow_parent
from eagle_benchmarks.comparisons import Case, default_batch_size, smooth_pictures

Run = Callable[[], Any]

_CLEAR_REFS, _RESET_PEAK = Path("/proc/self/clear_refs"), "5"
_STATUS = Path("/proc/self/status")
KILOBYTE = 1024


def alternating_times(sides: Mapping[str, Run], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of ``repeats`` runs of each side, run in turn after one warm-up run of each."""
    for run in sides.values():
        seconds(run, device)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            times[name].append(seconds(run, device))
    return times


def seconds(run: Run, device: torch.device) -> float:
    """Wall time of one run, including the device's work."""
    _wait_for(device)
    start = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - start


def peak_memory(run: Run, device: torch.device) -> int:
    """Peak bytes of one run above the level before it, in the GPU's allocator or, on the CPU, in the process.

    On Linux, processes that the run starts count too, each with its own peak. On the CPU, call it in a fresh process
    (``in_a_process``), where no earlier run left freed memory. Without Linux's /proc, memory freed earlier is
    subtracted from the peak.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    if _CLEAR_REFS.exists():
        _give_free_memory_back()
        _CLEAR_REFS.write_text(_RESET_PEAK)
    before = _peak_of_process()
    run()
    return _peak_of_process() - before


def _give_free_memory_back() -> None:
    """Let glibc return freed memory to the system, so that reusing it counts towards the peak."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _peak_of_process() -> int:
    """Peak resident bytes; on Linux since the last reset, with the peaks of child processes."""
    if _STATUS.exists():
        children = [Path(f"/proc/{child.pid}/status") for child in psutil.Process().children(recursive=True)]
        return sum(_peak_in(status) for status in (_STATUS, *children))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KILOBYTE)


def _peak_in(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * KILOBYTE


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``function`` in a fresh process and return its result."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=follow_parent) as pool:
        return pool.submit(function, *arguments).result()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


COPIED_FLOATS = 64 * 2**20
MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
TRIALS = 5


@dataclass(frozen=True)
class Floor:
    """FLOPs of backbone and head, forward and backward, and the rate of one large matrix product.

    Attributes:
        flops: FLOPs of one step.
        rate: rate in FLOP/s.
    """

    flops: int
    rate: float

    @property
    def seconds(self) -> float:
        """The shortest possible time of a step."""
        return self.flops / self.rate


def step_floor(case: Case, dtype: torch.dtype = torch.float32) -> Floor:
    """Floor of a case's step without cache: backbone on x and the blurred images, head on both views."""
    segmenter = case.segmenter
    # torch's counter lacks the CPU's fused attention, which does the same work as CUDA's.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _attention_flops}) as counter:
        for keys in segmenter._frozen_keys(case.batch):
            segmenter.net(keys).sum().backward()
    segmenter.zero_grad()
    return Floor(counter.get_total_flops(), matmul_rate(case.device, dtype))


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of ``TRIALS`` products of square matrices."""
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(TRIALS))


def crf_bytes(case: Case) -> int:
    """Bytes that the CRF of both probes' maps on the CPU must read and write if no table stays in a cache."""
    from eagle.maps.crf.compiled import CompiledCrf
    from eagle.maps.crf.lattice_kernels import LANES

    bgr = _bgr_bytes(case.batch["img"])
    n_images, height, width, _ = bgr.shape
    with CompiledCrf(height, width) as crf:
        lattices = [lattice for image in bgr for lattice in (crf.gaussian, crf.bilateral(image))]
    row = LANES * 4
    # A splat writes each vertex, a slice reads it; a blur reads and writes the vertices that have a neighbour.
    blurred = sum(int((chain < lattice.n_vertices).sum()) for lattice in lattices for chain in lattice.chains)
    filters = 2 * row * (sum(lattice.n_vertices for lattice in lattices) + blurred)
    # Probabilities and energies are read for the messages, the sums written, read by the softmax and written again.
    points = 5 * row * n_images * height * width
    n_blocks = sum(math.ceil(n / LANES) for n in case.segmenter.probe_maps(MapSettings()).n_clusters.values())
    return ITERATIONS * n_blocks * (filters + points)


def copy_rate() -> float:
    """Bytes per second, read and written, of the fastest of ``TRIALS`` copies on the CPU."""
    source = torch.ones(COPIED_FLOATS)
    target = torch.zeros_like(source)
    fastest = min(seconds(lambda: target.copy_(source), torch.device("cpu")) for _ in range(TRIALS))
    return 2 * source.nbytes / fastest


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, **_kwargs: Any) -> int:
    batch, heads, n_queries, channels = query
    return 2 * batch * heads * n_queries * key[2] * (channels + value[3])


N_BATCHES = 6
# A typical COCO image.
WIDTH, HEIGHT = 640, 480


def loader_throughput(cfg: Any) -> float:
    """Training images per second: decoded, resized, blurred and collated by warm ``num_workers`` processes."""
    batch_size = default_batch_size(cfg)
    with tempfile.TemporaryDirectory() as folder:
        _write_dataset(Path(folder) / "pictures", N_BATCHES * batch_size, cfg.seed)
        training = {
            "pytorch_data_dir": folder,
            "dir_dataset_name": "pictures",
            "dir_dataset_n_classes": cfg.n_classes,
            "res": cfg.res,
            "batch_size": batch_size,
            "num_workers": cfg.num_workers,
        }
        batches = iter(SegmentationDataModule(validated(TrainConfig, training)).train_dataloader())
        for _ in islice(batches, N_BATCHES):
            pass
        start = time.perf_counter()
        n_images = sum(len(batch["img"]) for batch in islice(batches, N_BATCHES))
        return n_images / (time.perf_counter() - start)


def _write_dataset(root: Path, n_images: int, seed: int) -> None:
    pictures = smooth_pictures(8, WIDTH, seed)[:, :, :HEIGHT]
    for split, count in (("train", n_images), ("val", 1)):
        (root / "imgs" / split).mkdir(parents=True)
        for index in range(count):
            picture = TF.to_pil_image(pictures[index % len(pictures)])
            picture.save(root / "imgs" / split / f"{index}.jpg", quality=90)
