"""Run the chosen sections of the benchmark; write a table of times and peak memory, and notes on lower bounds."""

import ctypes
import json
import multiprocessing
import os
import platform
import re
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from torchvision.transforms import functional as TF

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.datamodule import SegmentationDataModule
from eagle.errors import ConfigError, unknown_name_message
from eagle.files import write_text_atomically
from eagle.processes import follow_parent, usable_cores
from eagle_benchmarks.comparisons import (
    N_CLASSES,
    PARTS,
    Case,
    check,
    make_case,
    make_segmenter,
    sides,
    smooth_pictures,
)

HEADER = ("", "released s", "ours s", "ratio", "released MB", "ours MB", "ratio")
MEGABYTE, GIGA = 1e6, 1e9
BATCH = {"cpu": 8, "cuda": 32}
EVALUATIONS = {"crf": "CRF of both maps", "evaluation": "evaluation with CRF"}
EVALUATION_BATCH = {"cpu": 2, "cuda": 16}
GRID_SIDES = (14, 28, 40, 56)
BATCH_FACTORS = (0.25, 0.5, 1, 2)
SCALING_BATCH = 2
# Most patches for the released side: its full eigendecomposition of larger grids takes minutes.
RELEASED_PATCHES = {"cpu": 28**2, "cuda": 40**2}
# Loading: processes, batches, and the size of a typical COCO image.
NUM_WORKERS, N_BATCHES, WIDTH, HEIGHT = 2, 6, 640, 480
# Rate: the fastest of so many products of square matrices.
TRIALS, MATRIX_SIDE = 5, {"cpu": 2048, "cuda": 8192}
# Names of vector instructions in /proc/cpuinfo; products in bfloat16 take minutes without the last three.
BFLOAT16_SETS = ("avx512_bf16", "amx_bf16", "bf16")
INSTRUCTION_SETS = ("avx2", "avx512f", "asimd", "sve", *BFLOAT16_SETS)

# A row of the table, as in benchmark.json, or a note below it.
Result = dict[str, Any] | str


def run(cfg: Any) -> None:
    """Run the chosen sections, print each result at once, and write ``benchmark.json`` and ``benchmark.md``.

    Raises:
        ConfigError: a section is unknown, or the device is missing.
        EagleError: the released computation and ours differ.
    """
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: this machine has no CUDA device; use cpu or auto")
    chosen = list(SECTIONS) if list(cfg.sections) == ["all"] else list(cfg.sections)
    for name in chosen:
        if name not in SECTIONS:
            raise ConfigError(unknown_name_message("section", name, SECTIONS))
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    print(line(HEADER))
    for name in chosen:
        for result in SECTIONS[name](cfg, device):
            if isinstance(result, str):
                notes.append(result)
                print(f"- {result}", flush=True)
            else:
                rows.append(result)
                print(line(cells(result)), flush=True)
    write_report(Path(cfg.out), rows, notes)


def write_report(folder: Path, rows: list[dict[str, Any]], notes: list[str]) -> None:
    """Write rows and notes with the command and the machine, as JSON and for ``docs/performance.md``."""
    command, facts = shlex.join(["python", *sys.argv]), machine()
    content = {"command": command, "machine": facts, "rows": rows, "notes": notes}
    write_text_atomically(folder / "benchmark.json", json.dumps(content, indent=2) + "\n")
    lines = [f"`{command}`", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += [line(HEADER), line(["---"] + ["---:"] * (len(HEADER) - 1)), *(line(cells(row)) for row in rows), ""]
    write_text_atomically(folder / "benchmark.md", "\n".join([*lines, *(f"- {note}" for note in notes), ""]))


def line(texts: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(texts)} |"


def cells(row: dict[str, Any]) -> list[str]:
    """The texts of one line of the table."""

    def pair(released: float | None, ours: float, unit: float, digits: int) -> list[str]:
        if released is None:
            return ["", f"{ours / unit:.{digits}f}", ""]
        return [*(f"{side / unit:.{digits}f}" for side in (released, ours)), f"{released / ours:.2f}×" if ours else ""]

    times = pair(row["released"], row["ours"], unit=1, digits=4)
    return [row["name"], *times, *pair(row["released_memory"], row["ours_memory"], MEGABYTE, digits=0)]


def machine() -> dict[str, Any]:
    """Facts about the machine that times depend on."""
    facts: dict[str, Any] = {
        "processor": cpuinfo("model name") or platform.processor() or platform.machine(),
        "instruction sets": " ".join(instruction_sets()),
        "cores": usable_cores(),
        "torch threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name()
    facts |= {"torch": torch.__version__, "Python": platform.python_version()}
    if hasattr(os, "getloadavg"):
        facts["load average"] = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return {name: value for name, value in facts.items() if value}


def instruction_sets() -> list[str]:
    """Those of ``INSTRUCTION_SETS`` that the processor has; empty without Linux's /proc/cpuinfo."""
    names = cpuinfo("flags|Features").split()
    return [name for name in INSTRUCTION_SETS if name in names]


def cpuinfo(field: str) -> str:
    """A field of the first processor in Linux's /proc/cpuinfo, by a pattern of its name, or an empty string."""
    info = Path("/proc/cpuinfo")
    found = re.search(rf"^(?:{field})\s*: (.*)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return found[1] if found else ""


def compare(
    section: str, name: str, cfg: Any, device: torch.device, batch_size: int, res: int, released: bool = True
) -> dict[str, Any]:
    """Check that both sides of a part agree, time them in turn, and measure the peak memory of each."""
    case = make_case(cfg.model_type, device, batch_size, res)
    with case.pool:
        if released:
            check(section, case)
        runs = sides(section, case)
        if not released:
            runs = {"ours": runs["ours"]}
        times = alternating_times(runs, cfg.repeats, device)
        if device.type == "cuda":
            memory = {side: peak_memory(run, device) for side, run in runs.items()}
    if device.type == "cpu":
        arguments = (cfg.model_type, batch_size, res, torch.get_num_threads(), section)
        memory = {side: in_a_process(_cpu_memory, *arguments, side) for side in runs}
    median = {side: statistics.median(values) for side, values in times.items()}
    return {
        "name": name,
        "released": median.get("released"),
        "ours": median["ours"],
        "released_memory": memory.get("released"),
        "ours_memory": memory["ours"],
        "times": times,
    }


def alternating_times(
    runs: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of ``repeats`` runs of each side, the device's work included, in turn after a warm-up run of each."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + repeats):
        for name, run in runs.items():
            wait()
            start = time.perf_counter()
            run()
            wait()
            times[name].append(time.perf_counter() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def peak_memory(run: Callable[[], Any], device: torch.device) -> int:
    """Peak bytes of one run above the level before it, in the GPU's allocator or, on the CPU, in the process.

    On Linux, processes that the run starts count too, each with its own peak. On the CPU, call it in a fresh process,
    where no earlier run left freed memory. Without Linux's /proc, memory freed earlier is subtracted from the peak.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with suppress(OSError, AttributeError):  # glibc returns freed memory, so that reusing it counts
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _peak_of_process()
    run()
    return _peak_of_process() - before


def _peak_of_process() -> int:
    """Peak resident bytes; on Linux since the last reset, with the peaks of child processes."""
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    pids = ["self", *(child.pid for child in psutil.Process().children(recursive=True))]
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return 1024 * sum(int(text.partition("VmHWM:")[2].split()[0]) for text in texts)


def _cpu_memory(model_type: str, batch_size: int, res: int, threads: int, section: str, side: str) -> int:
    torch.set_num_threads(threads)
    case = make_case(model_type, torch.device("cpu"), batch_size, res)
    with case.pool:
        return peak_memory(sides(section, case)[side], case.device)


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``function`` in a fresh process and return its result."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=follow_parent) as pool:
        return pool.submit(function, *arguments).result()


def one_part(section: str, cfg: Any, device: torch.device) -> Iterator[Result]:
    """One row, at the resolution and batch size of training or of evaluation."""
    if section in EVALUATIONS:
        size, res = EVALUATION_BATCH[device.type], cfg.eval_res
        name = f"{EVALUATIONS[section]}, {res} pixels, {size} images"
    else:
        size, res = cfg.batch_size or BATCH[device.type], cfg.res
        name = f"{section}, {res} pixels, batch {size}"
    yield compare(section, name, cfg, device, size, res)


def scaling(cfg: Any, device: torch.device) -> Iterator[Result]:
    """Larger grids, the released side up to ``RELEASED_PATCHES``; larger batches, ours alone."""
    patch_size = make_segmenter(cfg.model_type).net.model.patch_size
    for side in GRID_SIDES:
        released = side**2 <= RELEASED_PATCHES[device.type]
        for section in ("eigen", "step"):
            name = f"{section}, N = {side}², batch {SCALING_BATCH}"
            yield compare(section, name, cfg, device, SCALING_BATCH, side * patch_size, released)
    for factor in BATCH_FACTORS:
        size = max(2, int((cfg.batch_size or BATCH[device.type]) * factor))
        yield compare("step", f"step, {cfg.res} pixels, batch {size}", cfg, device, size, cfg.res, released=False)


def data_loading(cfg: Any, device: torch.device) -> Iterator[Result]:
    """Training images per second: decoded, resized, blurred and collated by warm processes."""
    size = cfg.batch_size or BATCH[device.type]
    with tempfile.TemporaryDirectory() as folder:
        pictures = [TF.to_pil_image(picture) for picture in smooth_pictures(8, WIDTH)[:, :, :HEIGHT]]
        for split, count in (("train", N_BATCHES * size), ("val", 1)):
            images = Path(folder) / "pictures" / "imgs" / split
            images.mkdir(parents=True)
            for index in range(count):
                pictures[index % len(pictures)].save(images / f"{index}.jpg", quality=90)
        training = {
            "pytorch_data_dir": folder,
            "dir_dataset_name": "pictures",
            "dir_dataset_n_classes": N_CLASSES,
            "res": cfg.res,
            "batch_size": size,
            "num_workers": NUM_WORKERS,
        }
        batches = iter(SegmentationDataModule(validated(TrainConfig, training)).train_dataloader())
        for _ in islice(batches, N_BATCHES):
            pass
        start = time.perf_counter()
        rate = sum(len(batch["img"]) for batch in islice(batches, N_BATCHES)) / (time.perf_counter() - start)
    yield f"data loading: {rate:.0f} images per second with {NUM_WORKERS} processes"


def floor(cfg: Any, device: torch.device) -> Iterator[Result]:
    """Lower bounds on the time of a step; in bfloat16 only where the device computes it fast."""
    size, side = cfg.batch_size or BATCH[device.type], MATRIX_SIDE[device.type]
    flops = step_flops(make_case(cfg.model_type, device, size, cfg.res))
    fast = device.type == "cuda" or any(name in BFLOAT16_SETS for name in instruction_sets())
    for dtype in (torch.float32, torch.bfloat16) if fast else (torch.float32,):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        fastest = min(alternating_times({"": partial(torch.matmul, a, b)}, TRIALS, device)[""])
        rate = 2 * side**3 / fastest
        precision = str(dtype).removeprefix("torch.")
        yield (
            f"floor of the step, batch {size}, {precision}: "
            f"{flops / GIGA:.0f} GFLOP at {rate / GIGA:.0f} GFLOP/s = {flops / rate:.4f} s"
        )


def step_flops(case: Case) -> int:
    """FLOPs of a step without cache: backbone on x and the blurred images, head on both views, forward and backward."""
    # torch's counter lacks the CPU's fused attention, which does the same work as CUDA's.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def count(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    with FlopCounterMode(display=False, custom_mapping={attention: count}) as counter:
        for keys in case.segmenter._frozen_keys(case.batch):
            case.segmenter.net(keys).sum().backward()
    return counter.get_total_flops()


SECTIONS: dict[str, Callable[[Any, torch.device], Iterator[Result]]] = {
    "data": data_loading,
    **{section: partial(one_part, section) for section in PARTS},
    "scaling": scaling,
    "floor": floor,
}
