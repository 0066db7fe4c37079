"""Unfinished files, and places where one process at a time works."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import ROOT
from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.downloads.archives import staged
from eagle.downloads.fetching import fetch_file
from eagle.errors import EagleError
from eagle.files import LOCK_NAME, locked, remove_unfinished, written_atomically
from eagle.training.run import train

HOLDER = """
import os, sys, time
from pathlib import Path
from eagle.files import locked
with locked(Path(sys.argv[1]), Path("x")):
    if os.fork() == 0:  # like a loader process, which outlives it
        time.sleep(60)
    print(flush=True)
    time.sleep(60)
"""


@contextmanager
def held(lock):
    """Another process holds the lock; yields its id, and kills it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src_EAGLE")}
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as process:
        process.stdout.readline()
        try:
            yield process.pid
            process.kill()
            process.wait()
            with locked(lock, lock):
                assert f"process {os.getpid()} " in lock.read_text()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert not lock.exists()


def test_locked__names_the_process_and_ends_with_it(tmp_path):
    lock = tmp_path / "new" / "lock"
    with (
        held(lock) as number,
        pytest.raises(EagleError, match=rf"^out: process {number} on .* is working there"),
        locked(lock, Path("out")),
    ):
        pass


def test_staged_and_fetch_file__two_at_once(tmp_path):
    (tmp_path / ".set.preparing").mkdir()
    with held(tmp_path / ".set.eagle-lock") as number:
        with pytest.raises(EagleError, match=f"process {number}"), staged(tmp_path / "set"):
            pass
        assert (tmp_path / ".set.preparing").is_dir()
    with held(tmp_path / ".file.eagle-lock") as number, pytest.raises(EagleError, match=f"process {number}"):
        fetch_file("http://127.0.0.1:1/file", tmp_path / "file")


def test_train__beside_the_same_run(make_run):
    run_dir = train(make_run())
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    with held(run_dir / LOCK_NAME) as number, pytest.raises(EagleError, match=f"{run_dir}: process {number} on"):
        train(validated(TrainConfig, {**make_run(), "ckpt_path": "last", "max_steps": 9}))
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_remove_unfinished__leaves_the_users_hidden_files(tmp_path):
    (tmp_path / ".my-settings.json").touch()
    (tmp_path / ".my-projects").mkdir()
    with written_atomically(tmp_path / "a.png") as temporary:
        temporary.with_stem(f"{temporary.stem}x").touch()  # as a killed process leaves it
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".my-settings.json", ".my-projects", "a.png"}
