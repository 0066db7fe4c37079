"""Errors that a user can fix; commands print their message on one line, without a traceback."""

import difflib
import re
import signal
from collections.abc import Iterable
from pathlib import Path


class EagleError(Exception):
    """Base class; messages name the faulty file, key or value and what to do about it."""

    exit_status = 1  # of a command


class ConfigError(EagleError):
    """A configuration key is unknown, of the wrong type, or out of range."""


class DataError(EagleError):
    """A dataset, image or label is missing, unreadable or out of range."""


class WeightsError(EagleError):
    """Backbone weights are missing, unreadable or do not fit the model."""


class CheckpointError(EagleError):
    """A checkpoint is missing, unreadable, unsafe or does not fit the model."""


class TrainingError(EagleError):
    """A training run cannot continue."""


class DownloadError(EagleError):
    """A download failed after all retries, or the received file is not the expected one."""


class StoppedRunError(EagleError):
    """A signal stopped a run, which was saved first."""

    def __init__(self, signal_number: int, n_steps: int, path: Path, how_to_resume: str) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"{name}: stopped after {n_steps} steps, saved {path}; {how_to_resume}")
        self.exit_status = 128 + signal_number  # as shells report it


def one_line(error: BaseException) -> str:
    """Shorten an error to one line: the reason of an OSError, or the last line of any other message.

    The last line, because errors re-raised from a loader process start with that process's traceback.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^[\w.]*(Error|Exception): ", "", lines[-1]) if lines else type(error).__name__


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """Say ``unknown KIND 'NAME'`` and suggest the nearest known name, or list all if none is close."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(names)}"
    return f"unknown {kind} '{name}': {hint}"
