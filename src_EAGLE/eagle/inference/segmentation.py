"""The segmentation of one photograph: class ids with names and colours."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.labels import OVERLAY_OPACITY, overlay
from eagle.inference.masks import Legend, write_masks

# Longest side of the picture that a notebook shows.
NOTEBOOK_SIDE = 1024


@dataclass(frozen=True, repr=False)
class Segmentation:
    """What ``Segmenter.segment`` returns for a photograph; a notebook shows its overlay.

    Attributes:
        photograph: RGB, upright.
        ids: H×W int64 class ids in the photograph's size, or cluster ids where clusters have no class names; −1 is no
            class.
        legend: the ids' names and colours.
        name: the photograph's file name without suffix, or "image".

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from eagle import Segmentation
        >>> from eagle.inference.masks import Legend
        >>> ids = np.array([[0, 0, 1], [0, 1, 1]])
        >>> result = Segmentation(Image.new("RGB", (3, 2)), ids, Legend(None, "cluster", 2, None), "image")
        >>> result
        Segmentation('image', 3×2 pixels, 2 of 2 classes)
        >>> result.names, result.shares()
        (('cluster 0', 'cluster 1'), {'cluster 0': 0.5, 'cluster 1': 0.5})
        >>> result.overlay(opacity=0.7).size
        (3, 2)
    """

    photograph: Image.Image
    ids: np.ndarray
    legend: Legend
    name: str

    def __repr__(self) -> str:
        height, width = self.ids.shape
        n_classes = len(np.unique(self.ids[self.ids >= 0]))
        return f"Segmentation({self.name!r}, {width}×{height} pixels, {n_classes} of {len(self.names)} classes)"

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class id."""
        return self.legend.classes.names

    @property
    def palette(self) -> np.ndarray:
        """The colour of each class id, n×3 uint8 RGB."""
        return self.legend.classes.palette

    def overlay(self, opacity: float = OVERLAY_OPACITY) -> Image.Image:
        """The photograph under its class colours, with white borders.

        Args:
            opacity: 0 shows the photograph alone, 1 the colours alone.
        """
        return Image.fromarray(overlay(self.photograph, self.ids, self.palette, opacity))

    def shares(self) -> dict[str, float]:
        """Share of the pixels by class name, for the classes that occur, largest first."""
        return self.legend.shares(self.ids)

    def save(self, folder: str | Path, name: str | None = None, opacity: float = OVERLAY_OPACITY) -> dict[str, Path]:
        """Write ``NAME_ids.png``, ``NAME_color.png`` and ``NAME_overlay.png``, as ``segment_images.py`` does.

        Args:
            folder: created if missing.
            name: None for the photograph's name. An earlier photograph's files of this name are replaced.
            opacity: of the colours in the overlay, 0 to 1.

        Returns:
            The files by kind: ids, color, overlay.
        """
        classes = self.legend.classes
        files = write_masks(Path(folder), name or self.name, self.photograph, self.ids, classes, opacity)
        return {kind: Path(folder) / file for kind, file in files.items()}

    def _repr_png_(self) -> bytes:
        shown = self.overlay()
        shown.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        buffer = io.BytesIO()
        shown.save(buffer, format="PNG")
        return buffer.getvalue()
