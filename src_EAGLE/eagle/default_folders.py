"""Where commands read and write when nobody names a folder: in the repository, whatever the working directory."""

from pathlib import Path

_SOURCES = Path(__file__).resolve().parents[1]


def default_folder(name: str) -> str:
    """``name`` in the repository that this code lies in; for an installed copy, in the working directory.

    Args:
        name: relative to the repository, e.g. ``outputs``.
    """
    in_repository = (_SOURCES / "train_segmentation_eigen.py").is_file()
    return str(_SOURCES.parent / name) if in_repository else name
