"""No process outlives a killed run."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from conftest import ROOT
from eagle.processes import follow_parent
from eagle.training.run import train


def train_with(method, cfg):
    follow_parent()  # also where this test is interrupted
    torch.set_num_threads(1)
    multiprocessing.set_start_method(method, force=True)
    train(cfg)


@pytest.mark.parametrize(
    ("method", "n_helpers"),
    [
        ("fork", 0),
        pytest.param("forkserver", 1, marks=pytest.mark.slow),  # the server
    ],
)
def test_killed_run__leaves_no_process(make_run, tmp_path, method, n_helpers):
    """It is killed after a validation, when the loaders of both splits have started their workers."""
    cfg = make_run(max_steps=1_000_000, num_workers=2)
    # Spawned: a fork would take over the forked server that another test has started.
    run = multiprocessing.get_context("spawn").Process(target=train_with, args=(method, cfg))
    run.start()
    while run.is_alive() and not (tmp_path / "outputs" / "run" / "best.ckpt").exists():
        time.sleep(0.05)
    assert run.is_alive()
    started = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.join()
    assert len(started) >= 2 + 2 + n_helpers
    assert not psutil.wait_procs(started, timeout=10)[1]


SCRIPT_PARENT = """
import sys
from pathlib import Path
from eagle.processes import run_script
run_script(Path(sys.argv[1]), sys.argv[2:], "the job")
"""
SCRIPT_CHILD = """
import os, signal, sys, time
from eagle.processes import LAUNCHER, end_with
def stop(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
end_with(int(os.environ[LAUNCHER]))
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "said", "status"), [(signal.SIGTERM, "saved\n", 143), (signal.SIGKILL, "", -9)])
def test_run_script__the_command_ends_with_the_process_that_started_it(tmp_path, number, said, status):
    child = tmp_path / "child.py"
    child.write_text(SCRIPT_CHILD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src_EAGLE")}
    command = [sys.executable, "-c", SCRIPT_PARENT, str(child)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        job = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(number)
        assert parent.stdout.read() == said
        assert parent.wait(20) == status
        assert not psutil.wait_procs([job], timeout=20)[1]
