"""Is there a checkpoint? Asked before anything slow is imported."""

from pathlib import Path

from eagle.downloads.catalog import fetch_command
from eagle.errors import CheckpointError


def require_checkpoint(path: Path, key: str | None = None) -> None:
    """Raise CheckpointError if a checkpoint is missing; for a released one with the command that fetches it.

    Args:
        path: the checkpoint.
        key: configuration key that names it, for the message.
    """
    if not path.is_file():
        command = fetch_command(path.name)
        remedy = f"; `{command} output_dir={path.parent}` fetches it" if command else ""
        place = f"{key}: {path}" if key else str(path)
        raise CheckpointError(f"{place}: no such checkpoint{remedy}")
