"""The names that ``from eagle import …`` gives: documented with examples that run, and imported on first use."""

import doctest
import subprocess
import sys

import pytest

import eagle
from conftest import ROOT


@pytest.mark.parametrize("name", eagle.__all__)
def test_public_name__has_an_example_that_runs(name):
    item = getattr(eagle, name)
    examples = [test for test in doctest.DocTestFinder(recurse=False).find(item, name) if test.examples]
    assert examples, f"eagle.{name} shows no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in examples:
        said = []
        runner.run(example, out=said.append)
        assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_package__example_runs_and_unknown_names_are_refused():
    assert doctest.testmod(eagle).failed == 0
    with pytest.raises(AttributeError, match="load_segmentr"):
        _ = eagle.load_segmentr


def test_import__needs_no_heavy_package():
    heavy = "torch", "numpy", "pytorch_lightning", "timm", "omegaconf", "matplotlib", "numba"
    code = f"import sys, eagle; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "src_EAGLE", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
