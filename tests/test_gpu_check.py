"""scripts/gpu_check.sh: one line without a GPU; with one, every part runs and the summary names what failed."""

import subprocess
import sys

import pytest
import torch

from conftest import ROOT

SCRIPT = ROOT / "scripts/gpu_check.sh"

# Stands in for the interpreter of a machine with a GPU: it records its arguments, and fails where one equals $FAILING.
STUB = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then echo "Some GPU"; exit 0; fi
echo "$*" >>"$CALLS"
for word in "$@"; do
    if [[ $word == out=* ]]; then mkdir -p "${word#out=}"; echo "| a table |" >"${word#out=}/benchmark.md"; fi
    if [[ $word == "$FAILING" ]]; then exit 3; fi
done
echo "last line"
"""


@pytest.fixture
def check(tmp_path):
    def run(failing=""):
        stub = tmp_path / "python"
        stub.write_text(STUB)
        stub.chmod(0o755)
        environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(stub), "CALLS": str(tmp_path / "calls"), "STEPS": "7"}
        environment["FAILING"] = failing
        done = subprocess.run([SCRIPT, tmp_path / "out"], env=environment, capture_output=True, text=True, check=False)
        calls, summary = (tmp_path / "calls").read_text(), (tmp_path / "out/summary.md").read_text()
        return done.returncode, calls.splitlines(), summary.splitlines()

    return run


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_gpu_check__without_a_gpu_says_so_in_one_line(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    done = subprocess.run([SCRIPT, tmp_path / "out"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpu_check: torch sees no CUDA device on this machine; nothing was run\n"
    assert not (tmp_path / "out").exists()


def test_gpu_check__runs_tests_both_benchmarks_and_both_trainings_and_sums_up(check):
    code, calls, summary = check()
    assert code == 0
    kinds = ["pytest", "vit_small", "vit_base", "make_mosaics", "train_segmentation", "precision=bf16-mixed"]
    assert len(calls) == len(kinds)
    assert all(kind in call for kind, call in zip(kinds, calls, strict=True))
    assert summary[0] == "Some GPU"
    assert summary.count("| a table |") == 2
    assert summary[1] == "- tests: last line"
    assert [line.split(" in ")[0] for line in summary[2:4]] == [
        "- training_float32: 7 steps and start", "- training_bf16: 7 steps and start"
    ]  # fmt: skip


def test_gpu_check__a_part_that_fails_is_named_and_the_others_still_run(check):
    code, calls, summary = check(failing="precision=bf16-mixed")
    assert code == 1
    assert len(calls) == 6
    assert [line for line in summary if "FAILED" in line] == ["- training_bf16: FAILED"]
    assert summary[1] == "- tests: last line"
