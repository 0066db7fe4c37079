"""Run commands in children of a server that has imported them, and check what every command must keep.

Importing torch takes seconds, a fork of a process that has it a fraction of one: thousands of commands can be run as a
user runs them, with their own exit status, output, working folder and end.
"""

import atexit
import ctypes
import gc
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from omegaconf import DictConfig, OmegaConf

from eagle.config.application import parse_command_line, run_command
from eagle.config.schema import TrainConfig

SOURCES = Path(__file__).resolve().parents[2] / "src_EAGLE"
# Modules of the commands, and what they import when they run.
READING = ("eagle.commands.runs", "eagle.commands.provisions", "eagle.commands.photographs")
RUNNING = (*READING, "eagle.training.run", "eagle.inference.folders", "eagle.inference.eigen_pictures",
           "eagle.checkpoint_evaluation", "eagle.cluster_fit", "eagle.figures.curves")  # fmt: skip
# A command's memory in bytes, its seconds on a busy machine, and those that its processes may outlive it.
MOST_MEMORY, MOST_SECONDS, MOST_LINGERING = 12 << 30, 240, 10
# Cases in all families together; `make fuzz` sets it.
N_CASES = int(os.environ.get("EAGLE_FUZZ", 200))


@dataclass(frozen=True)
class Job:
    """A command and its words, the folder that it runs in, and seconds to wait before it and to SIGKILL."""

    words: Sequence[str]
    folder: Path
    start_after: float = 0
    kill_after: float = MOST_SECONDS
    read_only: bool = False  # print the configuration as JSON in place of running


@dataclass(frozen=True)
class Ended:
    """How a job ended: its status (negative for a signal), output, and the processes that it left."""

    job: Job
    status: int
    seconds: float
    stdout: str
    stderr: str
    left: list[str]

    def check(self, fine: bool, problem: str) -> None:
        """Raise AssertionError with all that is needed to see and repeat a problem, unless all is fine."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        repeat = f"repeat: EAGLE_FUZZ={N_CASES} python -m pytest '{test}'"
        assert fine, f"{problem}\n  {self.job.words}\n  status {self.status}: {self.stderr[-3000:]}\n  {repeat}"

    def check_rules(self) -> None:
        """Status 0, or status 1 and one line that says why; no traceback and no process left."""
        lines = [line.rpartition("\r")[2] for line in self.stderr.split("\n") if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        self.check(self.status in (0, 1), f"ended after {self.seconds:.0f} s")
        self.check("Traceback" not in self.stderr, "a traceback")
        self.check(len(errors) == self.status, f"{len(errors)} error lines")
        self.check(not errors or lines[-1] == errors[0], "more lines after the error")
        self.check(not self.left, f"left processes: {self.left}")


@cache
def _server(read_only: bool) -> tuple[Any, tempfile.TemporaryDirectory[str]]:
    """A server, which ends with this process; and the folder for temporary files, which every command must delete."""
    scratch, pipe = tempfile.TemporaryDirectory(), subprocess.PIPE
    variables = {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1", "TMPDIR": scratch.name}
    command = [sys.executable, __file__, *(READING if read_only else RUNNING)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, env={**os.environ, **variables}), scratch


def run(*jobs: Job) -> list[Ended]:
    """Run jobs side by side."""
    server, _ = _server(jobs[0].read_only)
    server.stdin.write(json.dumps([vars(job) for job in jobs], default=str).encode() + b"\n")
    server.stdin.flush()
    ended = json.loads(server.stdout.readline())
    return [Ended(job, **result) for job, result in zip(jobs, ended, strict=True)]


def checked(job: Job, *inputs: Path) -> Ended:
    """Run a job, and check that it keeps the rules of every command and changes no file of ``inputs``."""
    before = {folder: content_of(folder) for folder in inputs}
    scratch = Path(_server(job.read_only)[1].name)
    left_before = set(scratch.iterdir())  # by killed jobs, which could not delete them
    (ended,) = run(job)
    ended.check_rules()
    for folder, content in before.items():
        ended.check(content.items() <= content_of(folder).items(), "changed an input")
    ended.check(set(scratch.iterdir()) <= left_before, "left temporary files")
    return ended


def content_of(folder: Path) -> dict[Path, str]:
    """Hash of every file below a folder."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def cases(family: str, share: float) -> Any:
    """Parametrize a test by number and random generator of a family's cases; a longer run begins as a shorter one."""
    seeds = range(round(share * N_CASES))
    params = [pytest.param(index, Random(f"{family} {index}"), id=str(index)) for index in seeds]
    return pytest.mark.parametrize(("number", "random"), params)


def commands() -> dict[str, partial[None]]:
    """The commands by name: ``run_command`` with a schema, a function, and options."""
    found = [vars(import_module(module)).items() for module in READING]
    return {name.removesuffix("_main"): main for items in found for name, main in items if name.endswith("_main")}


def _serve(modules: Sequence[str]) -> None:
    """Run the jobs of each line in children, and print how they ended."""
    # Processes whose parent was killed become children of this one: PR_SET_CHILD_SUBREAPER.
    ctypes.CDLL(None).prctl(36, 1)
    for name in modules:
        import_module(name)
    mains = commands()
    # What Hydra finds and builds once: plugins in all packages, the tables of its grammar.
    parse_command_line(TrainConfig, ["res=8", "backbone_kwargs={a: [1, b]}"])
    gc.freeze()
    for line in iter(sys.stdin.buffer.readline, b""):
        started = {}
        for job in json.loads(line):
            output = [os.memfd_create(name) for name in ("stdout", "stderr")]
            if not (pid := os.fork()):
                _become(job, *output)
                main = mains[job["words"][0]]
                _end(_status(partial(_read, *main.args, **main.keywords) if job["read_only"] else main))
            started[pid] = job, output
        print(json.dumps(_ended(started)), flush=True)


def _become(job: dict[str, Any], out: int, err: int) -> None:
    """Take a command's place: its words, folder, output and process group."""
    os.setpgid(0, 0)
    os.chdir(job["folder"])
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(file, number)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    time.sleep(job["start_after"])
    command, *words = job["words"]
    script = command.replace("train_segmentation", "train_segmentation_eigen")
    sys.argv = [str(SOURCES / f"{script}.py"), *words]


def _read(schema: type, command: Callable[[Any], None], **options: Any) -> None:
    """``run_command`` for a command that prints its configuration."""

    def show(cfg: DictConfig) -> None:
        print(json.dumps(OmegaConf.to_container(cfg, resolve=True)))

    run_command(schema, wraps(command)(show), **options)


def _status(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            print(stopped.code, file=sys.stderr)
            return 1
        return stopped.code or 0
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


def _ended(started: dict[int, Any]) -> list[dict[str, Any]]:
    """Wait for jobs, killing those whose time is over, and then for their processes."""
    begun, ended = time.monotonic(), {}
    while len(ended) < len(started):
        for pid in started.keys() - ended.keys():
            passed = time.monotonic() - begun
            if passed > started[pid][0]["kill_after"]:
                os.kill(pid, 9)
            if (status := os.waitpid(pid, os.WNOHANG)) != (0, 0):
                ended[pid] = {"status": os.waitstatus_to_exitcode(status[1]), "seconds": passed}
        time.sleep(0.005)
    left = _left(time.monotonic() + MOST_LINGERING)
    for pid, (_, output) in started.items():
        for name, file in zip(("stdout", "stderr"), output, strict=True):
            with open(file, encoding="utf-8", errors="surrogateescape", newline="") as text:  # noqa: PTH123
                text.seek(0)
                ended[pid][name] = text.read()
    return [ended[pid] | {"left": left} for pid in started]


def _left(deadline: float) -> list[str]:
    """The children that do not end by themselves until the deadline, when they are killed."""
    while time.monotonic() < deadline:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.02)
        except ChildProcessError:
            return []
    left = psutil.Process().children(recursive=True)
    for process in left:
        process.kill()
    psutil.wait_procs(left)
    return list(map(str, left))


if __name__ == "__main__":
    _serve(sys.argv[1:])
