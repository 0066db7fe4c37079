"""README.md and run.json of a run folder."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from eagle.training.run import train


def test_readme__names_every_file_of_the_run_and_commands_that_exist(make_run):
    run_dir = train(make_run(n_images=1))
    text = (run_dir / "README.md").read_text(encoding="utf-8")
    listed = {
        name.rstrip("/") for row in re.findall(r"^\| (`.*?) \|", text, re.M) for name in re.findall("`(.*?)`", row)
    }
    assert {path.name for path in run_dir.iterdir()} - {"README.md"} <= listed
    commands = [shlex.split(line) for line in text.split("```")[1].splitlines()[1:] if not line.startswith("#")]
    assert len(commands) == 5
    assert all(Path(words[1]).is_file() for words in commands)


def test_run_record__says_what_a_run_was_made_with(make_run):
    run_dir = train(make_run(max_steps=1))
    train(make_run(max_steps=2, ckpt_path="last"))
    first, second = json.loads((run_dir / "run.json").read_text())
    assert first["command"] == sys.argv
    assert first["packages"]["torch"] == importlib.metadata.version("torch")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (first["git"] or {}).get("commit", "") == head.stdout.strip()
    assert (first["resumed_from"], second["resumed_from"]) == (None, str(run_dir / "last.ckpt"))
