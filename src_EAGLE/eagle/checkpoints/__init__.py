"""Checkpoints, released or ours: loading, file formats, and reading pickles without running their code."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eagle.checkpoints.loading import load_segmenter

__all__ = ["load_segmenter"]


def __getattr__(name: str) -> Any:
    """Import ``load_segmenter``, and with it torch, on first access."""
    if name in __all__:
        from eagle.checkpoints import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
