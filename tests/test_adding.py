"""The recipes of docs/adding.md: their patches apply to a copy of the code, and their checks run there."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

SECTIONS = re.split(r"^## ", (ROOT / "docs/adding.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
RECIPES = {
    section.split("\n")[0]: re.findall(r"^```(diff|python)\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    for section in SECTIONS
}


@pytest.fixture
def applied(tmp_path):
    """A copy of the code with the patches, which apply one after the other."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "configs")
    shutil.copytree(ROOT / "src_EAGLE", tmp_path / "src_EAGLE", ignore=ignored)
    for (_, patch), _ in RECIPES.values():
        subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=tmp_path, check=True)
    return tmp_path


def test_recipes__have_a_patch_and_a_check_and_apply_one_after_the_other(applied):
    assert [[kind for kind, _ in blocks] for blocks in RECIPES.values()] == [["diff", "python"]] * 4


@pytest.mark.slow
def test_recipes__run(applied):
    checks = "\n".join(check for _, (_, check) in RECIPES.values())
    environment = {**os.environ, "PYTHONPATH": str(applied / "src_EAGLE")}
    done = subprocess.run([sys.executable, "-c", checks], cwd=applied, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
