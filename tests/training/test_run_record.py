"""README.md and run.json of a run folder, and the code's version."""

import re
import shlex
import subprocess
from pathlib import Path

from eagle.training import run_record
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


def test_code_version__names_the_commit_and_whether_files_were_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(run_record, "_ROOT", tmp_path)
    assert "commit" not in (run_record.code_version() or ""), "an installed copy has none"

    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    assert "commit" not in (run_record.code_version() or ""), "there is none yet"
    (tmp_path / "tracked").write_text("as committed")
    git("add", "tracked")
    git("commit", "--quiet", "--message", "first")
    assert run_record.code_version().endswith(f"commit {git('rev-parse', 'HEAD')[:7]}")
    (tmp_path / "tracked").write_text("changed since")
    assert run_record.code_version().endswith(" and changes")
