"""Atomic writes, checks of a file's content (SHA-256, HTML), and the commands' default folders."""

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_SOURCES = Path(__file__).resolve().parents[1]


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` on success, delete it on error.

    The temporary name keeps the suffix, because image writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:  # keep the library's message, which filename would hide
            error.args = (f"{path}: {error}",)
        else:
            error.filename, error.filename2 = str(path), None  # name the target, not the temporary file
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete temporary files that killed processes left in ``folder``; no other process may be writing there."""
    for path in folder.glob(f".*-{'[a-z0-9_]' * 8}*"):
        path.unlink(missing_ok=True)


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
    """Return the path of folder ``name`` in the repository; for an installed copy, relative to the working directory.

    Args:
        name: path relative to the repository, e.g. ``outputs``.
    """
    in_repository = (_SOURCES.parent / "pyproject.toml").is_file()
    return str(_SOURCES.parent / name) if in_repository else name


def looks_like_html(head: bytes) -> bool:
    """Whether a file's first bytes look like HTML, e.g. a log-in page received instead of the file."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits, reading it in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@cache  # asking sets it for a moment, which must not happen in two threads at once
def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
