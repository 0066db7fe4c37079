"""Supported operating systems."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.parametrize(("platform", "status"), [("win32", 1), ("darwin", 0), ("linux", 0)])
def test_import__windows_is_refused_in_one_line(platform, status):
    code = f"import sys; sys.platform = '{platform}'; import eagle; print('imported')"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src_EAGLE")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == status
    if status:
        assert done.stderr == "error: EAGLE runs on Linux and macOS; on Windows, run it in WSL (wsl --install)\n"
    assert done.stdout == ("" if status else "imported\n")
