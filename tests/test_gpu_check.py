"""scripts/gpu_check.sh says in one line that there is no GPU."""

import subprocess
import sys

import pytest

from conftest import ROOT

SCRIPT = ROOT / "scripts/gpu_check.sh"


@pytest.mark.slow
def test_gpu_check__without_a_gpu_says_so_in_one_line(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([SCRIPT, tmp_path / "out"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpu_check: torch sees no CUDA device on this machine; nothing was run\n"
    assert not (tmp_path / "out").exists()
