"""Commands that messages tell people to type."""

import shlex
import sys
from pathlib import Path


def shell_command(script: Path, *arguments: str) -> str:
    """A line for a shell in any folder: this Python, the script's whole path, and the arguments, quoted."""
    return shlex.join([sys.executable, str(script.resolve()), *arguments])
