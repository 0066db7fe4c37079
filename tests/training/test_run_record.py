"""README.md and run.json of a run folder."""

import csv
import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from eagle.commands.photographs import SegmentConfig, VisualizeConfig
from eagle.commands.runs import FitConfig, PlotConfig
from eagle.config.application import parse_command_line
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import complete_config
from eagle.training.resume import resume_command
from eagle.training.run import train
from eagle.training.run_record import write_run_readme


def test_readme__names_every_file_of_the_run_and_commands_that_exist(make_run):
    run_dir = train(make_run(n_images=1))
    text = (run_dir / "README.md").read_text(encoding="utf-8")
    listed = {
        name.rstrip("/") for row in re.findall(r"^\| (`.*?) \|", text, re.M) for name in re.findall("`(.*?)`", row)
    }
    assert {path.name for path in run_dir.iterdir()} - {"README.md"} <= listed
    commands = [shlex.split(line) for line in text.split("```")[1].splitlines()[1:] if not line.startswith("#")]
    assert len(commands) == 6
    assert all(Path(words[1]).is_file() for words in commands)
    with (run_dir / "metrics.csv").open() as file:
        scores = [row["test/cluster/mIoU"] for row in csv.DictReader(file) if row["test/cluster/mIoU"]]
    assert f"cluster mIoU {max(map(float, scores)):.2f}" in text
    assert "halves: 4 training images, 4 validation images" in text


@pytest.mark.parametrize("name", ["lr=0.1,seed=0", "it's a[b (1) ü $x {y"])
def test_readme__commands_of_a_folder_with_an_odd_name_arrive_as_typed(tmp_path, name):
    run_dir = tmp_path / name
    run_dir.mkdir()
    for file in ("config.yml", "best.ckpt"):
        (run_dir / file).write_text("seed: 3\n")
    write_run_readme(run_dir, resume_command(run_dir), "mine: 3 images", complete_config({}), None)
    lines = [line for line in (run_dir / "README.md").read_text().split("```")[1].splitlines() if "python" in line]
    evaluate, segment, fit, visualize, plot, resume = (shlex.split(line)[2:] for line in lines)
    best = str(run_dir / "best.ckpt")
    assert list(parse_command_line(EvalConfig, evaluate, None, "model_paths").model_paths) == [best]
    assert parse_command_line(SegmentConfig, segment, None, "images").checkpoint == best
    assert list(parse_command_line(FitConfig, fit, None, "checkpoint").checkpoint) == [str(run_dir / "last.ckpt")]
    assert parse_command_line(VisualizeConfig, visualize, None, "images").checkpoint == best
    assert list(parse_command_line(PlotConfig, plot, None, "runs").runs) == [str(run_dir)]
    assert parse_command_line(TrainConfig, resume).seed == 3


def test_run_record__says_what_a_run_was_made_with(make_run):
    run_dir = train(make_run(max_steps=1))
    train(make_run(max_steps=2, ckpt_path="last"))
    first, second = json.loads((run_dir / "run.json").read_text())
    assert first["command"] == sys.argv
    assert first["packages"]["torch"] == importlib.metadata.version("torch")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (first["git"] or {}).get("commit", "") == head.stdout.strip()
    assert (first["resumed_from"], second["resumed_from"]) == (None, str(run_dir / "last.ckpt"))
