"""Records of segmented files, one JSON line each: what a later run may skip, and what ``segments.json`` is made of."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eagle.errors import DataError
from eagle.files import remove_unfinished, written_atomically

# Records of all processes, joined; and those that a process writes while it runs.
JOINED_LOG, RANK_LOGS = "segments.jsonl", "segments.rank-*.jsonl"

# Size in bytes and time of the last change in nanoseconds; None if the file cannot be asked.
Stamp = tuple[int, int] | None


def stamp_of(path: Path) -> Stamp:
    """The size and time by which a changed file is noticed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def keep_reusable(folder: Path, settings: str, names: Mapping[str, str]) -> None:
    """Join the logs of earlier runs and drop records of other settings, files or names; delete leftovers of a kill.

    Dropped before anything is written, because the masks they describe may be overwritten.

    Args:
        folder: the output folder.
        settings: what determines the masks besides the input file, as a hash.
        names: output name by path.
    """
    if any(folder.glob(RANK_LOGS)):
        remove_unfinished(folder)
    latest = {
        record["path"]: record
        for record in _records(folder)
        if record["settings"] == settings and names.get(record["path"]) == record["name"]
    }
    _replace_logs(folder, latest)


def joined_records(folder: Path, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Join the logs of all processes to one, in the order of ``names``, and return the latest record of each path.

    Raises:
        DataError: a file has no record.
    """
    latest = {record["path"]: record for record in _records(folder)}
    if missing := [path for path in names if path not in latest]:
        raise DataError(
            f"{folder}: lacks the results of {len(missing)} files, e.g. {missing[0]}; all processes must write to one "
            "shared folder"
        )
    ordered = {path: latest[path] for path in names}
    _replace_logs(folder, ordered)
    return ordered


class FinishedFiles:
    """The files that an earlier run segmented with the same settings; holds 16 bytes a file.

    Args:
        folder: the output folder, after ``keep_reusable``.
    """

    def __init__(self, folder: Path) -> None:
        self._digests = {
            _digest(record["path"], record["name"], tuple(record["stamp"]))
            for record in _lines(folder / JOINED_LOG)
            if "entry" in record and record["stamp"]
        }

    def has(self, path: Path, name: str, stamp: Stamp) -> bool:
        """Whether the file was segmented and has not changed since."""
        return stamp is not None and bool(self._digests) and _digest(str(path), name, stamp) in self._digests


class RankLog:
    """Appends records to a process's log; threads may share it. Each line reaches the system before ``add`` returns."""

    def __init__(self, file: Any, settings: str) -> None:
        self._file = file
        self._settings = settings
        self._lock = threading.Lock()

    def add(self, path: Path, name: str, stamp: Stamp, **result: Any) -> None:
        """Append a file's record.

        Args:
            path: the input file.
            name: its output name.
            stamp: of the input file, taken before it was read.
            result: ``entry``, the file's entry in ``segments.json``, or ``unreadable``, the reason.
        """
        record = {"path": str(path), "name": name, "settings": self._settings, "stamp": stamp, **result}
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with self._lock:
            self._file.write(line)


@contextmanager
def rank_log(folder: Path, rank: int, settings: str) -> Iterator[RankLog]:
    """Open a process's log in the output folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / RANK_LOGS.replace("*", str(rank))).open("ab", buffering=0) as file:
        yield RankLog(file, settings)


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    for path in (folder / JOINED_LOG, *sorted(folder.glob(RANK_LOGS))):
        yield from _lines(path)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a kill or a full disk tore it: the file is segmented again
            if isinstance(record, dict) and {"path", "name", "settings", "stamp"} <= record.keys():
                yield record


def _replace_logs(folder: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``records`` as the joined log and delete the others; a kill in between loses nothing."""
    with written_atomically(folder / JOINED_LOG) as temporary, temporary.open("wb") as file:
        for record in records.values():
            file.write((json.dumps(record, allow_nan=False) + "\n").encode())
    for path in folder.glob(RANK_LOGS):
        path.unlink()


def _digest(path: str, name: str, stamp: tuple[int, ...]) -> bytes:
    return hashlib.blake2b(json.dumps([path, name, stamp]).encode(), digest_size=16).digest()
