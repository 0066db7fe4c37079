"""No process outlives a killed run."""

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


@pytest.mark.parametrize(
    ("method", "n_helpers"),
    [
        ("fork", 0),
        pytest.param("forkserver", 2, marks=pytest.mark.slow),  # a resource tracker and the server
    ],
)
def test_killed_run__leaves_no_process(tmp_path, method, n_helpers):
    """It is killed after a validation, when the loaders of both splits have started their workers."""
    write_halves(tmp_path / "data" / "halves")
    values = run_values(tmp_path) | {"max_steps": 1_000_000, "num_workers": 2, "val_freq": 2, "checkpoint_freq": 2}
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(textwrap.dedent(TRAINING.format(values=values)))
    mark = uuid.uuid4().hex
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src_EAGLE"), "OMP_NUM_THREADS": "1", MARK: mark}
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, str(program), method], stdout=out, stderr=out, env=environment)
    while process.poll() is None and not (tmp_path / "outputs" / "run" / "best.ckpt").exists():
        time.sleep(0.05)
    assert process.poll() is None, log.read_text()
    assert len(marked(MARK, mark)) >= 1 + 2 + 2 + n_helpers
    process.kill()
    process.wait()
    assert left_after(10, lambda: marked(MARK, mark)) == []


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
