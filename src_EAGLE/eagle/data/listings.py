"""Text files that name one thing a line."""

from pathlib import Path

from eagle.errors import DataError


def read_names(path: Path) -> list[str]:
    """The lines of a UTF-8 file without the empty ones; raises DataError where it is no such text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    return [line.strip() for line in lines if line.strip()]
