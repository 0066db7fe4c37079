"""Run commands in children of a server that has imported them, and check what every command must keep.

Importing torch takes seconds and a fork of a process that has it a fraction of one, so that thousands of commands can
be run as a user runs them: with their own exit status, output, working folder and end.
"""

import atexit
import ctypes
import gc
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig, OmegaConf

from eagle.config.application import parse_command_line, run_command
from eagle.config.schema import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
# Modules of the commands, and what they import when they run.
READING = ("eagle.commands.runs", "eagle.commands.provisions", "eagle.commands.photographs")
RUNNING = (*READING, "eagle.training.run", "eagle.inference.folders", "eagle.inference.eigen_pictures",
           "eagle.checkpoint_evaluation", "eagle.cluster_fit", "eagle.figures.curves")  # fmt: skip
# A command's memory in bytes, its seconds on a busy machine, and those that its processes may outlive it.
MOST_MEMORY, MOST_SECONDS, MOST_LINGERING = 12 << 30, 240, 10
# Cases in all families together; `make fuzz` sets it.
N_CASES = int(os.environ.get("EAGLE_FUZZ", 300))


@dataclass(frozen=True)
class Job:
    """A command's name and words, the folder that it runs in, and what is done to it.

    Attributes:
        kill_after: seconds until the process gets SIGKILL; None lets it end.
        start_after: seconds that it waits.
        read_only: print the configuration as JSON in place of running the command.
    """

    command: str
    words: Sequence[str]
    folder: Path
    kill_after: float | None = None
    start_after: float = 0
    read_only: bool = False


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (negative for a signal), output, and the processes that it left."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    left: list[str]

    @property
    def lines(self) -> list[str]:
        """Lines of stderr; a progress bar's counts as one."""
        return [line.rpartition("\r")[2] for line in self.stderr.split("\n") if line.strip()]


class Runner:
    """Starts the server, and gives it jobs; those of one call run side by side."""

    def __init__(self, *modules: str) -> None:
        # Temporary files of all commands; every command must delete its own.
        self._scratch = tempfile.TemporaryDirectory()
        variables = {"PYTHONPATH": str(ROOT / "src_EAGLE"), "OMP_NUM_THREADS": "1", "TMPDIR": self._scratch.name}
        command = [sys.executable, __file__, *modules]
        environment = {**os.environ, **variables}
        # It ends with this process, which closes the pipe.
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def run(self, *jobs: Job) -> list[Ended]:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps([vars(job) for job in jobs], default=str).encode() + b"\n")
        self._server.stdin.flush()
        return [Ended(**ended) for ended in json.loads(self._server.stdout.readline())]

    def checked(self, job: Job, *inputs: Path) -> Ended:
        """Run one job, and check that it keeps the rules of every command and changes no file of ``inputs``."""
        before = [content_of(folder) for folder in inputs]
        (ended,) = self.run(job)
        check(job, ended)
        for folder, content in zip(inputs, before, strict=True):
            assert content.items() <= content_of(folder).items(), told(job, ended, "changed an input")
        assert not list(Path(self._scratch.name).iterdir()), told(job, ended, "left temporary files")
        return ended


def check(job: Job, ended: Ended) -> None:
    """Status 0, or status 1 and one line that says why; no traceback and no process left."""
    assert ended.status in (0, 1), told(job, ended, f"ended with {ended.status} after {ended.seconds:.0f} s")
    errors = [line for line in ended.lines if line.startswith("error: ")]
    assert "Traceback" not in ended.stderr, told(job, ended, "a traceback")
    assert len(errors) == ended.status, told(job, ended, f"{len(errors)} error lines with status {ended.status}")
    assert not errors or ended.lines[-1] == errors[0], told(job, ended, "more lines after the error")
    assert not ended.left, told(job, ended, f"left processes: {ended.left}")


def told(job: Job, ended: Ended, what: str) -> str:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
    return f"{what}\n  {job.command} {list(job.words)!r}\n  {ended.stderr[-3000:]}\n  repeat: {repeat(test)}"


def repeat(test: str) -> str:
    return f"EAGLE_FUZZ={N_CASES} python -m pytest '{test}'"


def content_of(folder: Path) -> dict[Path, str]:
    """Hash of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def seeds(family: str, share: float) -> list[Any]:
    """Number and random generator of each case of a family, which has a share of all; longer runs begin as shorter."""
    import pytest

    n = round(share * N_CASES)
    return [pytest.param(index, random.Random(f"{family} {index}"), id=str(index)) for index in range(n)]


@cache
def reader() -> Runner:
    """For jobs that only read their words."""
    return Runner(*READING)


@cache
def runner() -> Runner:
    return Runner(*RUNNING)


def _serve(modules: Sequence[str]) -> None:
    # Processes whose parent was killed become children of this one: PR_SET_CHILD_SUBREAPER.
    ctypes.CDLL(None).prctl(36, 1)
    mains = {name: main for module in modules for name, main in vars(_module(module)).items() if name.endswith("_main")}
    # What Hydra finds and builds once: plugins in all packages, the tables of its grammar.
    parse_command_line(TrainConfig, ["res=8", "backbone_kwargs={a: [1, b]}"])
    gc.freeze()
    for line in iter(sys.stdin.buffer.readline, b""):
        started = {}
        for job in json.loads(line):
            if not (pid := os.fork()):
                _become(job)
                _end(_status(mains[f"{job['command']}_main"]))
            started[pid] = job
        print(json.dumps(_ended(started)), flush=True)


def _become(job: dict[str, Any]) -> None:
    """Take a command's place: its words, folder, output and process group."""
    os.setpgid(0, 0)
    os.chdir(job["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{name}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    time.sleep(job["start_after"])
    script = {"train_segmentation": "train_segmentation_eigen"}.get(job["command"], job["command"])
    sys.argv = [str(ROOT / "src_EAGLE" / f"{script}.py"), *job["words"]]
    if job["read_only"]:
        for module in READING:
            _module(module).run_command = _read


def _status(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            print(stopped.code, file=sys.stderr)
        return int(isinstance(stopped.code, str)) if not isinstance(stopped.code, int) else stopped.code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(status: int) -> None:
    """End as Python does, without the second that it takes to tear down torch in a forked process."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _read(schema: type, command: Callable[[Any], None], **options: Any) -> None:
    def show(cfg: DictConfig) -> None:
        print(json.dumps(OmegaConf.to_container(cfg, resolve=True)))

    run_command(schema, wraps(command)(show), **options)


def _ended(started: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Wait for the jobs by process id, then for their processes."""
    begun, ended = time.monotonic(), {}
    while len(ended) < len(started):
        for pid, job in started.items():
            passed = time.monotonic() - begun
            if pid not in ended and passed > min(MOST_SECONDS, MOST_SECONDS if (k := job["kill_after"]) is None else k):
                os.kill(pid, signal.SIGKILL)
            if pid not in ended and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), passed
        time.sleep(0.005)
    results = []
    left = _left(time.monotonic() + MOST_LINGERING)
    for pid, job in started.items():
        texts = {}
        for name in ("stdout", "stderr"):
            file = Path(job["folder"]) / f"{name}.{pid}"
            texts[name] = file.read_text(encoding="utf-8", errors="surrogateescape")
            file.unlink()
        results.append({"status": ended[pid][0], **texts, "seconds": ended[pid][1], "left": left})
    return results


def _left(deadline: float) -> list[str]:
    """Command lines of the children that do not end by themselves until the deadline, when they are killed."""
    while time.monotonic() < deadline:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.02)
        except ChildProcessError:
            return []
    lines = []
    for process in psutil.Process().children(recursive=True):
        lines.append(" ".join([str(process.pid), *process.cmdline()]))
        process.kill()
        process.wait()
    return lines


def _module(name: str) -> Any:
    __import__(name)
    return sys.modules[name]


if __name__ == "__main__":
    _serve(sys.argv[1:])
