"""A web server on 127.0.0.1 that misbehaves on request, for the tests of downloads."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How the server answers; ``requests`` records the path and the Range header of each request."""

    files: dict[str, bytes]
    ranges: bool = True
    cuts: int = 0  # number of responses that are cut off
    cut_after: int = 0  # bytes that each of these sends
    send_length: bool = True
    status: int = 200
    delay: float = 0.0  # seconds before each response
    pause_per_chunk: float = 0.0
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def asked_ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self):
        behaviour = self.behaviour
        behaviour.requests.append((self.path, self.headers.get("Range")))
        time.sleep(behaviour.delay)
        content = behaviour.files.get(self.path.lstrip("/"))
        if behaviour.status != 200 or content is None:
            self.send_error(behaviour.status if behaviour.status != 200 else 404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same_file = self.headers.get("If-Range") in (None, _etag(content))
        self._send(content, int(asked[1]) if asked and behaviour.ranges and same_file else 0)

    def _send(self, content, start):
        behaviour = self.behaviour
        if start >= len(content) > 0:
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", _etag(content))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if behaviour.send_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour.cuts:
            behaviour.cuts -= 1
            body = body[: behaviour.cut_after]
        for at in range(0, len(body), 1 << 16):
            self.wfile.write(body[at : at + (1 << 16)])
            time.sleep(behaviour.pause_per_chunk)

    def log_message(self, *_):
        pass


def _etag(content):
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Ignore clients that were killed or gave up."""


@contextmanager
def served(files: dict[str, bytes], **behaviour) -> Iterator[tuple[str, Behaviour]]:
    """Yield the server's address and its behaviour, which a test may change while the server runs."""
    state = Behaviour(files, **behaviour)
    handler = type("Handler", (_Handler,), {"behaviour": state})
    with _QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", state
        finally:
            server.shutdown()
            thread.join()
