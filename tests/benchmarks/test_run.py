import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from scripts.benchmark import BenchmarkConfig

from eagle.config.validation import validated
from eagle.errors import ConfigError
from eagle_benchmarks import run as benchmark
from eagle_benchmarks.comparisons import PARTS, make_case
from eagle_benchmarks.run import alternating_times, in_a_process, peak_memory, step_flops

VIT = "vit_tiny_patch16_224"
TINY = {"model_type": VIT, "res": 64, "eval_res": 64, "batch_size": 2, "repeats": 2, "device": "cpu"}
CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the benchmark of a tiny model, in one process; return what ``benchmark.json`` and ``benchmark.md`` say."""
    monkeypatch.setattr(benchmark, "in_a_process", lambda function, *arguments: function(*arguments))

    def run(**values):
        benchmark.run(validated(BenchmarkConfig, TINY | {"out": str(tmp_path)} | values))
        return json.loads((tmp_path / "benchmark.json").read_text()), (tmp_path / "benchmark.md").read_text()

    return run


def test_run__rows_notes_and_files(run, monkeypatch):
    monkeypatch.setattr(benchmark, "MATRIX_SIDE", {"cpu": 64})
    monkeypatch.setattr(benchmark, "instruction_sets", lambda: ["avx2"])
    written, markdown = run(sections=["object_nce", "floor"])
    (row,) = written["rows"]
    assert row["name"] == "object_nce, 64 pixels, batch 2"
    assert {side: len(times) for side, times in row["times"].items()} == {"released": 2, "ours": 2}
    assert min(row["released_memory"], row["ours_memory"]) >= 0
    assert f"| {row['name']} | {row['released']:.4f} | {row['ours']:.4f} | " in markdown
    (step,) = written["notes"]
    assert "floor of the step, batch 2, float32: " in step, "and none in bfloat16, which takes minutes here"
    assert "- instruction sets: avx2" in markdown


def test_run__an_unknown_section_is_named(run):
    with pytest.raises(ConfigError, match="did you mean 'eigen'"):
        run(sections=["eigne"])
    (sections,) = (field for field in fields(BenchmarkConfig) if field.name == "sections")
    assert all(name in sections.metadata["meaning"] for name in benchmark.SECTIONS), "--help lists every section"


def test_alternating_times__one_side_after_the_other_after_warming_up():
    order = []
    times = alternating_times({side: lambda side=side: order.append(side) for side in "ab"}, 3, CPU)
    assert "".join(order) == "ab" * 4
    assert len(times["a"]) == len(times["b"]) == 3


def peaks_of_a_tensor_and_of_a_child():
    def start():
        code = "block = b'x' * 100_000_000; print(flush=True); input()"
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        children.append(child)  # it ends when its standard input closes, so it must live until the peak is read

    children = []
    return peak_memory(lambda: torch.ones(25_000_000).sum(), CPU), peak_memory(start, CPU)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_peak_memory__is_what_a_run_and_its_processes_add():
    assert in_a_process(peaks_of_a_tensor_and_of_a_child) == pytest.approx((1e8, 1e8), rel=0.3)


def test_step_flops__are_what_the_layers_do():
    """Against a count by hand: backbone of 2 images and 1 changed one, head of both views forward and backward."""
    n, c, keys, dim, depth = 16, 192, 576, 512, 12
    tokens = n + 1
    block = tokens * 12 * c * c + 2 * tokens * tokens * c
    keys_alone = tokens * c * c
    image = n * 3 * 16 * 16 * c + (depth - 1) * block + 3 * keys_alone
    head = n * (keys * dim + keys * keys + keys * dim)
    # Backward: all weights' gradients, and the inputs' of the last layer alone, as K needs none.
    backward = head + n * keys * dim
    expected = 2 * (3 * image + 4 * (head + backward))
    assert step_flops(make_case(VIT, CPU, 2, 64)) == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_run__every_section(run, monkeypatch):
    monkeypatch.setattr(benchmark, "GRID_SIDES", (4, 6))
    monkeypatch.setattr(benchmark, "BATCH_FACTORS", (1,))
    written, _ = run(repeats=1)
    grid_rows, batch_rows = 2 * 2, 1
    assert len(written["rows"]) == len(PARTS) + grid_rows + batch_rows
    assert {note.split(",")[0].split(":")[0] for note in written["notes"]} == {"data loading", "floor of the step"}
