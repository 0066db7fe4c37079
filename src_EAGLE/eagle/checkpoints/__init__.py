"""Checkpoints, published or our own: loading, formats, and reading pickles without running what is in them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eagle.checkpoints.loading import load_segmenter

__all__ = ["load_segmenter"]


def __getattr__(name: str) -> Any:
    """Import ``load_segmenter``, and torch with it, when it is first asked for."""
    if name in __all__:
        from eagle.checkpoints import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
