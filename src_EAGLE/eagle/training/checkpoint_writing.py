"""Atomic checkpoint writes: a killed process or a full disk leaves no partial file."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from eagle.files import written_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, flushes it to disk and renames it; the old ``last`` is kept as ``previous``.

    Args:
        last: file name of the checkpoint whose predecessor is kept.
        previous: file name of the predecessor.
    """

    def __init__(self, last: str, previous: str) -> None:
        super().__init__()
        self._last = last
        self._previous = previous

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        """Write a checkpoint atomically."""
        path = Path(path)
        # Serialise in memory first: torch's file writer hides the cause when the disk is full.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with written_atomically(path) as temporary:
            with temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if path.name == self._last and path.is_file():
                path.replace(path.with_name(self._previous))
