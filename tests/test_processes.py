"""No process outlives a killed run."""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid

import psutil
import pytest

from conftest import ROOT, run_values
from eagle.errors import TrainingError
from eagle.processes import run_script
from left_processes import left_after, marked
from miniatures import write_halves

MARK = "EAGLE_KILLED_RUN"

TRAINING = """
    import multiprocessing, sys
    from eagle.config.schema import TrainConfig
    from eagle.config.validation import validated
    from eagle.training.run import train

    if __name__ == "__main__":
        multiprocessing.set_start_method(sys.argv[1])
        train(validated(TrainConfig, {values!r}))
"""

CRF = """
    import sys, time
    import torch
    from eagle.maps.crf.dense_crf import dense_crf
    from eagle.maps.crf.pool import CrfPool

    if __name__ == "__main__":
        with CrfPool(2) as pool:
            dense_crf(torch.zeros(2, 3, 9, 9), torch.randn(2, 3, 9, 9), "pydensecrf", pool)
            open(sys.argv[1], "w").close()
            time.sleep(1000)
"""


def kill_when_there(path, script, argument, at_least):
    """Start a script, kill it once ``path`` exists, and return those of its processes that remain after ten seconds.

    Args:
        path: file that the script writes.
        script: source code of the program.
        argument: its command line argument.
        at_least: minimum number of running processes before the kill, including the program's own.
    """
    program = path.parent / f"program_{argument.split('/')[-1]}.py"
    program.write_text(textwrap.dedent(script))
    mark = uuid.uuid4().hex
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src_EAGLE"), "OMP_NUM_THREADS": "1", MARK: mark}
    log = program.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, str(program), argument], stdout=out, stderr=out, env=environment)
    while process.poll() is None and not path.exists():
        time.sleep(0.05)
    assert process.poll() is None, log.read_text()
    assert len(marked(MARK, mark)) >= at_least
    process.kill()
    process.wait()
    return left_after(10, lambda: marked(MARK, mark))


@pytest.mark.parametrize(
    ("method", "n_helpers"),
    [
        ("fork", 0),
        pytest.param("spawn", 1, marks=pytest.mark.slow),  # a resource tracker
        pytest.param("forkserver", 2, marks=pytest.mark.slow),  # and the server
    ],
)
def test_killed_run__leaves_no_process(tmp_path, method, n_helpers):
    """It is killed after a validation, when the loaders of both splits have started their workers."""
    write_halves(tmp_path / "data" / "halves")
    values = run_values(tmp_path) | {"max_steps": 1_000_000, "num_workers": 2, "val_freq": 2, "checkpoint_freq": 2}
    written = tmp_path / "outputs" / "run" / "best.ckpt"
    written.parent.mkdir(parents=True)
    script = TRAINING.format(values=values)
    assert kill_when_there(written, script, method, at_least=1 + 2 + 2 + n_helpers) == []


@pytest.mark.skipif(importlib.util.find_spec("pydensecrf") is None, reason="pydensecrf is not installed")
def test_killed_crf_pool__leaves_no_process(tmp_path):
    ready = tmp_path / "ready"
    assert kill_when_there(ready, CRF, str(ready), at_least=4) == []


SCRIPT_PARENT = """
import sys
from pathlib import Path
from eagle.processes import run_script
run_script(Path(sys.argv[1]), sys.argv[2:], "the job")
"""
SCRIPT_CHILD = """
import os, signal, sys, time
from eagle.processes import end_with_parent
def stop(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
end_with_parent()
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


def test_run_script__names_the_job_that_failed(tmp_path):
    child = tmp_path / "child.py"
    child.write_text("raise SystemExit(3)")
    with pytest.raises(TrainingError, match="the job failed"):
        run_script(child, [], "the job")
