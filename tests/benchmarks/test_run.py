import json
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from eagle.config.validation import validated
from eagle.errors import ConfigError
from eagle_benchmarks import BenchmarkConfig
from eagle_benchmarks import run as benchmark
from eagle_benchmarks.comparisons import COMPARISONS, make_case
from eagle_benchmarks.measure import alternating_times, crf_bytes, in_a_process, peak_memory, step_floor

TINY = {
    "model_type": "vit_tiny_patch16_224", "res": 64, "eval_res": 64, "batch_size": 2, "n_classes": 4, "repeats": 2,
    "num_workers": 0, "device": "cpu",
}  # fmt: skip
CPU = torch.device("cpu")


def test_run__rows_notes_and_files(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_memory", lambda *_: 7_000_000)
    cfg = validated(BenchmarkConfig, TINY | {"sections": ["data", "object_nce", "floor"], "out": str(tmp_path)})
    report = benchmark.run(cfg)
    assert [row.name for row in report.rows] == ["object_nce, 64 pixels, batch 2"]
    assert all(len(times) == 2 for times in report.rows[0].times.values())
    assert any("images per second" in note for note in report.notes)
    assert sum("GFLOP" in note for note in report.notes) == 2
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["rows"][0]["ours"] == report.rows[0].ours
    assert "| object_nce, 64 pixels, batch 2 |" in (tmp_path / "benchmark.md").read_text()


def test_run__ours_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_memory", lambda *_: 7_000_000)
    cfg = validated(BenchmarkConfig, TINY | {"sections": ["eicue"], "published": False, "out": str(tmp_path)})
    (row,) = benchmark.run(cfg).rows
    assert row.released is None
    assert row.ours > 0


def test_run__an_unknown_section_is_named(tmp_path):
    cfg = validated(BenchmarkConfig, TINY | {"sections": ["eigne"], "out": str(tmp_path)})
    with pytest.raises(ConfigError, match="did you mean 'eigen'"):
        benchmark.run(cfg)
    (sections,) = (field for field in fields(BenchmarkConfig) if field.name == "sections")
    assert all(name in sections.metadata["meaning"] for name in benchmark.SECTIONS), "--help lists every section"


def test_alternating_times__one_side_after_the_other_after_warming_up():
    order = []
    times = alternating_times(
        {"a": lambda: order.append("a"), "b": lambda: (order.append("b"), time.sleep(0.02))}, 3, CPU
    )
    assert "".join(order) == "ab" * 4
    assert all(value >= 0.02 for value in times["b"])
    assert len(times["a"]) == len(times["b"]) == 3


def peak_of_a_hundred_megabytes():
    return peak_memory(lambda: torch.ones(25_000_000).sum(), CPU)


def test_peak_memory__is_what_the_run_adds():
    assert in_a_process(peak_of_a_hundred_megabytes) == pytest.approx(1e8, rel=0.2)


def peak_of_a_child():
    children = []  # the child ends when its standard input closes, so it must live until the peak is read
    return peak_memory(lambda: children.append(started_child()), CPU)


def started_child():
    code = "block = b'x' * 100_000_000; print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    return child


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_peak_memory__counts_the_processes_that_a_run_starts():
    assert in_a_process(peak_of_a_child) == pytest.approx(1e8, rel=0.3)


def test_crf_bytes__are_in_proportion_to_the_blocks_of_channels():
    few, many = (crf_bytes(make_case(validated(BenchmarkConfig, TINY | {"n_classes": n}))) for n in (8, 24))
    # The cluster probe has five clusters more: 1 + 2 and 3 + 4 blocks of eight channels.
    assert many / few == 7 / 3


def test_floor__counts_what_the_layers_do():
    """Against a count by hand: backbone of 2 images and 1 changed one, head of both views forward and backward."""
    cfg = validated(BenchmarkConfig, TINY)
    case = make_case(cfg)
    n, c, keys, dim, depth = 16, 192, 576, 512, 12
    tokens = n + 1
    block = tokens * 12 * c * c + 2 * tokens * tokens * c
    keys_alone = tokens * c * c
    image = n * 3 * 16 * 16 * c + (depth - 1) * block + 3 * keys_alone
    head = n * (keys * dim + keys * keys + keys * dim)
    # Backward: all weights' gradients, and the inputs' of the last layer alone, as K needs none.
    backward = head + n * keys * dim
    expected = 2 * (3 * image + 4 * (head + backward))
    assert step_floor(case).flops == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_run__every_section(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "GRID_SIDES", (4, 6))
    monkeypatch.setattr(benchmark, "BATCH_FACTORS", (1,))
    monkeypatch.setattr(benchmark, "_memory", lambda *_: 7_000_000)
    report = benchmark.run(validated(BenchmarkConfig, TINY | {"repeats": 1, "out": str(tmp_path)}))
    evaluation_rows, grid_rows, batch_rows = 2, 2 * 2, 1
    assert len(report.rows) == len(COMPARISONS) + evaluation_rows + grid_rows + batch_rows
    assert len(report.notes) == 4
