"""The README.md of a run folder."""

import re
import shlex
from pathlib import Path

from eagle.training.run import train


def test_readme__names_every_file_of_the_run_and_commands_that_exist(make_run):
    run_dir = train(make_run(n_images=1))
    text = (run_dir / "README.md").read_text(encoding="utf-8")
    listed = {
        name.rstrip("/") for row in re.findall(r"^\| (`.*?) \|", text, re.M) for name in re.findall("`(.*?)`", row)
    }
    assert {path.name for path in run_dir.iterdir()} - {"README.md"} <= listed
    commands = [shlex.split(line) for line in text.split("```")[1].splitlines()[1:] if not line.startswith("#")]
    assert [Path(words[1]).name for words in commands] == [
        "eval_segmentation.py", "segment_images.py", "visualize_eigen.py", "plot_run.py", "train_segmentation_eigen.py",
    ]  # fmt: skip
    assert all(Path(words[1]).is_file() for words in commands)
    assert f"model_paths=[{run_dir / 'best.ckpt'}]" in commands[0]
