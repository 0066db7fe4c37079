"""Fetch one file over HTTP: resume after interruptions, verify, and rename only when complete."""

import logging
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from itertools import chain
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from eagle.downloads.file_checks import find_defect, rename_verified
from eagle.errors import DownloadError
from eagle.files import looks_like_html

CHUNK_BYTES = 1 << 18
LONGEST_PAUSE = 30.0
# Status codes that are retried, besides 5xx: time-out, too early, too many requests.
_TRANSIENT_STATUS = {408, 425, 429}

logger = logging.getLogger(__name__)


class _InterruptedError(Exception):
    """An attempt ended early; the partial file keeps its bytes, and another attempt may finish it."""


@dataclass(frozen=True)
class _Transfer:
    """One download from ``url`` into the partial file ``part``."""

    url: str
    part: Path
    size: int | None
    timeout: float

    @property
    def received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    @property
    def validator_file(self) -> Path:
        """Stores the ETag or Last-Modified date of the remote file that ``part`` belongs to."""
        return self.part.with_name(self.part.name + ".etag")

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.validator_file.unlink(missing_ok=True)


def download(
    url: str,
    destination: str | Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    retries: int = 4,
    backoff: float = 1.0,
    timeout: float = 30.0,
) -> Path:
    """Fetch ``url`` into ``destination``, unless it already exists with this ``size`` and ``sha256``.

    Bytes are written to ``destination + ".part"``, from which a later attempt or process resumes.

    Args:
        url: an http or https address.
        destination: the file to write; its folder is created.
        size: expected size in bytes, if known.
        sha256: expected hexadecimal digest, if known.
        retries: further attempts after a failure; an attempt that brings new bytes resets the count.
        backoff: seconds before the first retry, doubled for each further one up to 30.
        timeout: seconds without a byte until an attempt is abandoned.

    Returns:
        ``destination``.

    Raises:
        DownloadError: the address is invalid, the server refuses or keeps failing, the result is an HTML page or has
            another size or digest, or the file cannot be written.
    """
    destination = Path(destination)
    part = destination.with_name(destination.name + ".part")
    transfer = _Transfer(url, part, size, timeout)
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: not an http or https address")
    try:
        if destination.is_file() and find_defect(destination, size, sha256) is None:
            return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        _fetch_with_retries(transfer, retries, backoff)
        try:
            rename_verified(part, destination, url, size=size, sha256=sha256)
        finally:
            transfer.validator_file.unlink(missing_ok=True)
    except OSError as error:
        raise DownloadError(f"{destination}: cannot be written ({error.strerror or error})") from error
    return destination


def _fetch_with_retries(transfer: _Transfer, retries: int, backoff: float) -> None:
    """Retry until the partial file is complete; raise DownloadError after too many attempts without new bytes."""
    furthest = transfer.received
    fruitless = 0
    while True:
        try:
            return _attempt(transfer)
        except _InterruptedError as interruption:
            reason = str(interruption)
        fruitless = fruitless + 1 if transfer.received <= furthest else 1
        furthest = max(furthest, transfer.received)
        if fruitless > retries:
            raise DownloadError(
                f"{transfer.url}: {reason} (failed {fruitless} times in a row); "
                f"check the connection and run the command again, which keeps the first {transfer.received} bytes"
            )
        pause = min(backoff * 2 ** (fruitless - 1), LONGEST_PAUSE)
        logger.info("%s: %s; trying again in %g s", transfer.url, reason, pause)
        time.sleep(pause)


def _attempt(transfer: _Transfer) -> None:
    """Request the missing bytes once; raise _InterruptedError if some are still missing afterwards."""
    if transfer.size is not None and transfer.received > transfer.size:
        transfer.discard()
    offset = transfer.received
    response = None if offset and offset == transfer.size else _open(transfer, offset)
    if response is None:
        return
    with response:
        offset = offset if response.status == 206 else 0
        total = _announced_total(transfer, response, offset)
        chunks = _chunks(response, transfer.timeout)
        first = next(chunks, b"")
        if offset == 0:
            _refuse_html(transfer.url, response, first)
            _remember_validator(transfer, response)
        name = transfer.part.name.removesuffix(".part")
        with (
            transfer.part.open("ab" if offset else "wb") as file,
            tqdm(total=total, initial=offset, desc=name, unit="B", unit_scale=True, unit_divisor=1024) as bar,
        ):
            for chunk in chain((first,), chunks):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and transfer.received != total:
        raise _InterruptedError(f"the connection ended after {transfer.received} of {total} bytes")


def _open(transfer: _Transfer, offset: int) -> HTTPResponse | None:
    """The server's response from byte ``offset``; None if the partial file is already complete."""
    headers = {"User-Agent": "eagle-segmentation", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if transfer.validator_file.is_file():
            headers["If-Range"] = transfer.validator_file.read_text()
    try:
        request = Request(transfer.url, headers=headers)  # noqa: S310  download() admits http and https only
        return urlopen(request, timeout=transfer.timeout)  # noqa: S310
    except HTTPError as error:
        if error.code == 416 and offset:
            if error.headers.get("Content-Range") == f"bytes */{offset}":
                return None
            transfer.discard()
            raise _InterruptedError("the server cannot continue the partial file") from error
        if error.code >= 500 or error.code in _TRANSIENT_STATUS:
            raise _InterruptedError(f"the server answers {error.code} {error.reason}") from error
        raise DownloadError(
            f"{transfer.url}: the server answers {error.code} {error.reason}; check the address or fetch by hand"
        ) from error
    except (ValueError, InvalidURL) as error:
        raise DownloadError(f"{transfer.url}: not a valid address ({error})") from error
    except (OSError, HTTPException) as error:
        raise _InterruptedError(_reason(error, transfer.timeout)) from error


def _chunks(response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """Yield the body as it arrives, so that an interruption loses no received bytes."""
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise _InterruptedError(_reason(error, timeout)) from error
        if not chunk:
            return
        yield chunk


def _announced_total(transfer: _Transfer, response: HTTPResponse, offset: int) -> int | None:
    """The file's size as announced by the server, if any; raise if it is wrong or exceeds the free disk space."""
    length = response.headers.get("Content-Length", "")
    total = offset + int(length) if length.isdigit() else None
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != offset:
            transfer.discard()
            raise _InterruptedError("the server sent another range than requested")
        total = int(span[2]) if span[2] != "*" else total
    elif response.status != 200:
        raise DownloadError(f"{transfer.url}: the server answers {response.status}; check the address")
    if total is None:
        return None
    if transfer.size is not None and total != transfer.size:
        raise DownloadError(
            f"{transfer.url}: the server offers {total} bytes instead of {transfer.size}; fetch by hand"
        )
    free = shutil.disk_usage(transfer.part.parent).free + transfer.received
    if total > free:
        raise DownloadError(f"{transfer.part.parent}: {total} bytes are needed and {free} are free; make room")
    return total


def _refuse_html(url: str, response: HTTPResponse, head: bytes) -> None:
    if response.headers.get_content_type() == "text/html" or looks_like_html(head):
        raise DownloadError(f"{url}: the server sent an HTML page in place of the file; open the address in a browser")


def _remember_validator(transfer: _Transfer, response: HTTPResponse) -> None:
    """Store the value for ``If-Range``, so that bytes of a changed file are never appended to old ones."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    if validator:
        transfer.validator_file.write_text(validator)
    else:
        transfer.validator_file.unlink(missing_ok=True)


def _reason(error: OSError | HTTPException, timeout: float) -> str:
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, OSError) else error
    if isinstance(cause, TimeoutError):
        return f"no data received for {timeout:g} s"
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
    return f"the connection failed ({' '.join(str(text).split()) or type(cause).__name__})"
