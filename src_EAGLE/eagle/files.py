"""Files that are either whole or not there; what a file is: its hash, and whether it is a web page."""

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to it at the end, removed after an error.

    The temporary name keeps the suffix, from which writers of pictures choose their format.
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
        if error.errno is None:  # a library's own words, which a file name would hide
            error.args = (f"{path}: {error}",)
        else:
            error.filename, error.filename2 = str(path), None  # not the temporary name, which says nothing
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes left in a folder under temporary names; nobody else may be writing there."""
    for path in folder.glob(f".*-{'[a-z0-9_]' * 8}*"):
        path.unlink(missing_ok=True)


@contextmanager
def nameless_errors_name(place: Path) -> Iterator[None]:
    """Give ``place`` as the file of OSErrors that name none, as those of writing to a full disk do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(place)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name, then rename it."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv_atomically(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a UTF-8 table under a temporary name, then rename it."""
    with written_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def looks_like_html(head: bytes) -> bool:
    """Whether a file's first bytes are those of a web page, e.g. a log-in form sent in the file's place."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 digest of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
