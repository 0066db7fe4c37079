"""Atomic writes, checks of a file's content (SHA-256, HTML), and the commands' default folders."""

import csv
import errno
import fcntl
import hashlib
import os
import platform
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from eagle.errors import EagleError

_SOURCES = Path(__file__).resolve().parents[1]
# In a folder that one process at a time writes to.
LOCK_NAME = ".eagle-lock"
# Starts the names of unfinished files, which a user's own files do not have.
_UNFINISHED = ".eagle-unfinished-"


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` on success, delete it on error.

    The temporary name keeps the suffix, because image writers choose their format by it, but not the rest, which with
    more characters could be too long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except OSError as error:  # name the target, not the temporary file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # renamed, or never made, on a disk that is read-only
            temporary.unlink()


def remove_unfinished(folder: Path) -> None:
    """Delete temporary files that killed processes left in ``folder``; no other process may be writing there."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(lock: Path, place: Path) -> Iterator[None]:
    """Keep other processes out of ``place`` by the file ``lock``, which is deleted at the end.

    The kernel releases the lock of a process that dies. Processes that this one forks do not hold it. A file system
    without locks keeps nobody out.

    Raises:
        EagleError: another process, which the message names, holds the lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with lock.open("a+", encoding="utf-8") as file:
            try:
                # Unlike flock's, this lock is not inherited by loader processes, which may outlive a killed run for a
                # moment.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    file.seek(0)
                    holder = file.read() or "another process"
                    message = f"{place}: {holder} is working there; wait for it, or choose another place"
                    raise EagleError(message) from error
            if not _is_there(file, lock):
                continue  # the process that held it has deleted it
            try:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}")
                file.flush()
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``, and delete the temporary files that killed ones left there.

    Raises:
        EagleError: as ``locked``.
    """
    with locked(folder / LOCK_NAME, folder):
        remove_unfinished(folder)
        yield


def _is_there(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def nameless_errors_name(place: Path) -> Iterator[None]:
    """Set ``place`` as the file name of OSErrors without one, e.g. those of writes to a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(place)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv_atomically(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a UTF-8 CSV table atomically."""
    with written_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def default_folder(name: str) -> str:
    """Path of folder ``name`` in the repository; for an installed copy, relative to the working directory."""
    in_repository = (_SOURCES.parent / "pyproject.toml").is_file()
    return str(_SOURCES.parent / name) if in_repository else name


def looks_like_html(head: bytes) -> bool:
    """Whether a file's first bytes look like HTML, e.g. a log-in page received instead of the file."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits, reading it in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
