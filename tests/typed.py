"""A command as it is typed, run in this process: starting one of its own takes seconds."""

import io
import logging
import os
import runpy
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock


def typed(script: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in its folder; returns its status, output and messages as ``subprocess.run`` does."""
    command, out, err, status = [script.name, *map(str, words)], io.StringIO(), io.StringIO(), 0
    log, messages = logging.getLogger(), logging.StreamHandler(err)
    level = log.level
    log.addHandler(messages)
    log.setLevel(logging.INFO)
    try:
        with (
            redirect_stdout(out), redirect_stderr(err), chdir(script.parent),
            mock.patch.object(sys, "argv", command), mock.patch.dict(os.environ, environment),
        ):  # fmt: skip
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as stopped:  # its code is a status, or the error that Python would print
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
        print(stopped.code if isinstance(stopped.code, str) else "", file=err)
    finally:
        log.removeHandler(messages)
        log.setLevel(level)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())
