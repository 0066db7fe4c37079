"""Load the model and serve the page, with a temporary folder for uploads that ends with the server."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from omegaconf import DictConfig

from eagle.errors import ConfigError, one_line

if TYPE_CHECKING:
    from eagle.demo.model import Model


def serve(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        cfg: a validated DemoConfig.

    Raises:
        CheckpointError, ConfigError, DataError: the checkpoint, a key or the file of names is unusable.
    """
    if find_spec("gradio") is None:
        raise ConfigError("the page needs gradio: pip install -e .[demo]")
    with listening(cfg.host, cfg.port) as listener, tempfile.TemporaryDirectory(prefix="eagle-demo-") as folder:
        from eagle.demo.model import Model
        from eagle.inference.segmenter import load_segmenter

        names = Path(cfg.cluster_names) if cfg.cluster_names else None
        model = Model(load_segmenter(cfg.checkpoint, cfg.device, cfg.precision), names)
        model.check()
        _run(model, "/".join(Path(cfg.checkpoint).parts[-2:]), listener, Path(folder))


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, so that a taken port is known before the model loads; raises ConfigError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"host={host} port={port}: {one_line(error)}; choose others") from error
    with listener:
        yield listener


def _run(model: "Model", title: str, listener: socket.socket, folder: Path) -> None:
    # Gradio reads these when it is imported and when the page is built.
    settings = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": str(folder)}
    with patch.dict(os.environ, settings):
        from eagle.demo.page import application
        from eagle.demo.running import run

        app = application(model, title, folder)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"The page is on http://{shown}:{port} (Ctrl-C stops it)", flush=True)
        run(app, listener)
