"""The recipes of docs/adding.md: each patch applies to a copy of the code, and its check runs there."""

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


def test_recipes__all_have_a_patch_and_a_check():
    assert [[kind for kind, _ in blocks] for blocks in RECIPES.values()] == [["diff", "python"]] * 4


@pytest.mark.parametrize("name", RECIPES)
def test_recipe__applies_and_runs(name, tmp_path):
    (_, patch), (_, check) = RECIPES[name]
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "configs")
    shutil.copytree(ROOT / "src_EAGLE", tmp_path / "src_EAGLE", ignore=ignored)
    subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=tmp_path, check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src_EAGLE")}
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
