"""Run the page's application until a signal stops it."""

import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from gradio.routes import App
from starlette.routing import Mount

# Seconds that answers get to finish.
LAST_SECONDS = 2


class _Server(uvicorn.Server):
    """Ends the connection that each open page holds, which uvicorn would wait for.

    Args:
        app: with Gradio mounted.
        config: uvicorn's.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._pages = [route.app for route in app.routes if isinstance(route, Mount) and isinstance(route.app, App)]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        for page in self._pages:
            page.stop_event.set()
        super().handle_exit(sig, frame)


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serve until SIGINT, which raises KeyboardInterrupt, or SIGTERM, which exits with 143.

    Args:
        app: with Gradio mounted.
        listener: a listening socket.
    """
    # Uvicorn raises the signal again when it has shut down; the default would end the process without cleaning up.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=LAST_SECONDS)
    _Server(app, config).run(sockets=[listener])
