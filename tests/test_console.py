"""What commands print, and where they run."""

import os
import subprocess
import sys

import pytest
import yaml

from conftest import ROOT
from eagle.console import mean_and_deviation, text_table, version_and_citation


def test_text_table__first_column_left_numbers_right():
    lines = text_table(["class", "IoU"], [["sky", "7.00"], ["building", "12.50"]]).splitlines()
    assert lines == ["class       IoU", "--------  -----", "sky        7.00", "building  12.50"]


def test_mean_and_deviation__of_a_sample():
    assert mean_and_deviation([1.0, 2.0, 6.0]) == "3.00 ± 2.65"


def test_version__tells_the_facts_of_the_citation_file():
    facts = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper, text = facts["preferred-citation"], version_and_citation()
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    for fact in (facts["title"], facts["message"][:-1], paper["title"], authors, str(paper["year"])):
        assert fact in text


@pytest.mark.parametrize(("platform", "status"), [("win32", 1), ("darwin", 0)])
def test_import__windows_is_refused_in_one_line(platform, status):
    code = f"import sys; sys.platform = '{platform}'; import eagle"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src_EAGLE")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.startswith("error: EAGLE runs on Linux and macOS" if status else "")
