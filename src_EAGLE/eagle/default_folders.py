"""Default folders: inside the repository, whatever the working directory."""

from pathlib import Path

_SOURCES = Path(__file__).resolve().parents[1]


def default_folder(name: str) -> str:
    """Return the path of folder ``name`` in the repository; for an installed copy, relative to the working directory.

    Args:
        name: path relative to the repository, e.g. ``outputs``.
    """
    in_repository = (_SOURCES.parent / "pyproject.toml").is_file()
    return str(_SOURCES.parent / name) if in_repository else name
