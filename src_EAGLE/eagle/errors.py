"""Errors that a user can mend: the commands print their message as one line, without a traceback."""

import difflib
import re
import signal
from collections.abc import Iterable
from pathlib import Path


class EagleError(Exception):
    """Base of all errors whose message names the thing at fault and what to do about it."""


class ConfigError(EagleError):
    """A configuration key is unknown, of the wrong type, or out of range."""


class DataError(EagleError):
    """A dataset, image or label is missing, unreadable or out of range."""


class WeightsError(EagleError):
    """Backbone weights are missing, unreadable or do not fit the model."""


class CheckpointError(EagleError):
    """A checkpoint is missing, unreadable, unsafe or does not fit the model."""


class TrainingError(EagleError):
    """A training run cannot go on."""


class DownloadError(EagleError):
    """A download failed for good or what arrived is not what was asked for."""


class StoppedRunError(EagleError):
    """A signal ended a run after it was saved.

    Attributes:
        exit_status: 128 and the signal's number, as a shell reports it.
    """

    def __init__(self, signal_number: int, step: int, path: Path, how_to_go_on: str) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"{name}: stopped after batch {step}, saved {path}; {how_to_go_on}")
        self.exit_status = 128 + signal_number


def one_line(error: BaseException) -> str:
    """What an error of a library says, on one line: an OSError's reason without its number, else its last line.

    An error re-raised from a loader process carries that process's traceback before its own line.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^[\w.]*(Error|Exception): ", "", lines[-1]) if lines else type(error).__name__


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """``unknown KIND 'NAME'`` with the nearest known name, or all of them where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(names)}"
    return f"unknown {kind} '{name}': {hint}"
