import subprocess
import sys

import yaml

from conftest import ROOT
from eagle.citation import version_and_citation
from eagle.console import mean_and_deviation, text_table


def test_text_table__numbers_line_up_at_the_right():
    lines = text_table(["class", "IoU"], [["sky", "7.00"], ["building", "12.50"]]).splitlines()
    assert lines == ["class       IoU", "--------  -----", "sky        7.00", "building  12.50"]


def test_text_table__words_line_up_at_the_left():
    assert text_table(["a", "b"], [["x", "longer"]], numbers=False).splitlines()[2] == "x  longer"


def test_mean_and_deviation__of_a_sample():
    assert mean_and_deviation([1.0, 2.0, 6.0]) == "3.00 ± 2.65"
    assert mean_and_deviation([2.5]) == "2.50"


def test_version__tells_the_facts_of_the_citation_file():
    facts = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper, text = facts["preferred-citation"], version_and_citation()
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    for fact in (facts["title"], facts["message"][:-1], paper["title"], authors, str(paper["year"])):
        assert fact in text
    assert text.startswith("eagle-segmentation ")


INTERRUPTED = """
import dataclasses, os, signal, sys
sys.argv = ["command"]
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
from tqdm import tqdm
from eagle.config.command_line import run_command

@dataclasses.dataclass
class Nothing: ...

def command(cfg):
    bar = tqdm(total=3)
    bar.update()
    os.kill(os.getpid(), signal.SIGINT)

run_command(Nothing, command)
"""


def test_interrupt__leaves_no_half_drawn_bar():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT / "src_EAGLE", capture_output=True, text=True)
    assert done.returncode == 130
    *drawn, last = done.stderr.splitlines()
    assert drawn
    assert last == "interrupted"
