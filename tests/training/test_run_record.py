"""README.md and run.json of a run folder."""

import importlib.metadata
import json
import shlex
import sys

import pytest

from eagle.commands.photographs import SegmentConfig
from eagle.config.application import parse_command_line
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import complete_config
from eagle.training.run import train, write_run_readme


@pytest.mark.parametrize("name", ["lr=0.1,seed=0", "it's a[b (1) ü $x {y"])
def test_readme__commands_of_a_folder_with_an_odd_name_arrive_as_typed(tmp_path, name):
    run_dir = tmp_path / name
    run_dir.mkdir()
    for file in ("config.yml", "best.ckpt"):
        (run_dir / file).write_text("seed: 3\n")
    write_run_readme(run_dir, "mine: 3 images", complete_config({}))
    lines = [line for line in (run_dir / "README.md").read_text().split("```")[1].splitlines() if "python" in line]
    evaluate, segment, resume = (shlex.split(line)[2:] for line in lines)
    best = str(run_dir / "best.ckpt")
    assert list(parse_command_line(EvalConfig, evaluate, None, "model_paths").model_paths) == [best]
    assert parse_command_line(SegmentConfig, segment, None, "images").checkpoint == best
    assert parse_command_line(TrainConfig, resume).seed == 3
    write_run_readme(run_dir, "mine: 3 images", complete_config({}), has_labels=False)
    assert "eval_segmentation.py" not in (run_dir / "README.md").read_text()


def test_run_record__says_what_a_run_was_made_with(make_run):
    run_dir = train(make_run(max_steps=1))
    train(make_run(max_steps=2, ckpt_path="last"))
    first, second = json.loads((run_dir / "run.json").read_text())
    assert first["command"] == sys.argv
    assert first["packages"]["torch"] == importlib.metadata.version("torch")
    assert (first["resumed_from"], second["resumed_from"]) == (None, str(run_dir / "last.ckpt"))
    assert "halves: 4 training images" in (run_dir / "README.md").read_text(encoding="utf-8")
