"""Load the model and serve the page until a signal: only the routes it needs, uploads in a folder that ends with it."""

import os
import re
import signal
import socket
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import uvicorn
from omegaconf import DictConfig
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eagle.errors import ConfigError, one_line

# Gradio also has routes that serve files, fetch addresses and list other things.
ROUTES = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json)|/(assets|static)/.+"
    r"|/gradio_api/(upload|upload_progress|queue/(join|data)|info|startup-events|heartbeat/\w+)"
)
# Gradio compiles scripts in the browser, hence unsafe-eval; downloads are data URLs, which ask no server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Seconds that answers get to finish, and that open pages, which hold a connection each, are waited for.
LAST_SECONDS = 2


def serve(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C, which raises KeyboardInterrupt, or SIGTERM, which exits with 143.

    Args:
        cfg: a validated DemoConfig.

    Raises:
        CheckpointError, ConfigError, DataError: the checkpoint, a key or the file of names is unusable.
    """
    with listening(cfg.host, cfg.port) as listener, tempfile.TemporaryDirectory(prefix="eagle-demo-") as folder:
        # Gradio reads these when it is imported and when the page is built.
        settings = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": folder}
        with patch.dict(os.environ, settings):
            from eagle.demo.handlers import Handlers
            from eagle.demo.page import application
            from eagle.inference.segmenter import load_segmenter

            names = Path(cfg.cluster_names) if cfg.cluster_names else None
            handlers = Handlers(load_segmenter(cfg.checkpoint, cfg.device, cfg.precision), names, Path(folder))
            app = application(handlers, "/".join(Path(cfg.checkpoint).parts[-2:]))
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"The page is on http://{shown}:{port} (Ctrl-C stops it)", flush=True)
            # Uvicorn raises the signal again when it has shut down; by default that would skip the cleaning up.
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
            config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=LAST_SECONDS)
            uvicorn.Server(config).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A listening socket, so that a taken port is known before the model loads; raises ConfigError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"host={host} port={port}: {one_line(error)}; choose others") from error


class Privacy:
    """ASGI middleware that refuses all routes but ROUTES and adds HEADERS.

    Args:
        app: the application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        allowed = scope["type"] != "http" or ROUTES.fullmatch(scope["path"])
        app: ASGIApp = self._app if allowed else PlainTextResponse("not found", 404)
        await app(scope, receive, with_headers)
