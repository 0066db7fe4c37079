"""Checkpoints that a kill or a full disk cannot tear."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from eagle.files import written_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes under a temporary name, waits for the disk, then renames; ``last.ckpt`` becomes ``previous.ckpt`` first.

    Args:
        last: name of the checkpoint whose predecessor is kept.
        previous: the predecessor's name.
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
        """Write a checkpoint whole or not at all."""
        path = Path(path)
        # Not straight to the file: torch's writer hides a full disk behind an error of its own.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with written_atomically(path) as temporary:
            with temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if path.name == self._last and path.is_file():
                path.replace(path.with_name(self._previous))
