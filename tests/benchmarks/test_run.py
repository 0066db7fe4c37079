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
from eagle_benchmarks.comparisons import PARTS
from eagle_benchmarks.run import in_a_process, peak_memory

VIT = "vit_tiny_patch16_224"
TINY = {"model_type": VIT, "res": 64, "eval_res": 64, "batch_size": 2, "repeats": 2, "device": "cpu"}
CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the benchmark of a tiny model, in one process; return what ``benchmark.jsonl`` and ``benchmark.md`` say."""
    monkeypatch.setattr(benchmark, "in_a_process", lambda function, *arguments: function(*arguments))

    def run(**values):
        benchmark.run(validated(BenchmarkConfig, TINY | {"out": str(tmp_path)} | values))
        return json.loads((tmp_path / "benchmark.jsonl").read_text().splitlines()[-1]), (
            tmp_path / "benchmark.md"
        ).read_text()

    return run


def test_run__rows_and_files(run):
    written, markdown = run(sections=["eigen"])
    (row,) = written["rows"]
    assert row["name"] == "eigen, 64 pixels, batch 2"
    assert {side: len(times) for side, times in row["times"].items()} == {"released": 2, "ours": 2}
    assert min(row["released bytes"], row["ours bytes"]) >= 0
    assert row["of peak"] > 0, "one product of matrices is faster than anything else"
    assert {"processor", "instruction sets", "load average"} <= written["machine"].keys()
    assert f"| {row['name']} | {row['released s']:.4f} | {row['ours s']:.4f} | " in markdown


def test_run__an_unknown_section_is_named(run):
    with pytest.raises(ConfigError, match="did you mean 'eigen'"):
        run(sections=["eigne"])
    (sections,) = (field for field in fields(BenchmarkConfig) if field.name == "sections")
    assert all(name in sections.metadata["meaning"] for name in PARTS), "--help lists every section"


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


@pytest.mark.slow
def test_run__every_section(run):
    written, _ = run(repeats=1)
    assert len(written["rows"]) == len(PARTS)
