"""Segmentations of photographs: ids with names and colours, legends, mask files."""

import io
from collections import Counter
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.datasets.base import Classes
from eagle.data.labels import (
    NO_CLASS,
    NO_CLASS_NAME,
    OVERLAY_OPACITY,
    ClassMap,
    colored_image,
    numbered_clusters,
    overlay,
    write_ids,
    write_image,
)
from eagle.errors import ConfigError
from eagle.maps.probe_maps import CUT_SIGN
from eagle.models.cluster_tree import ClusterCut


class Legend:
    """Names and colours of the ids in masks.

    Args:
        class_map: the checkpoint's; if it is None or lacks this probe, clusters are named by their numbers.
        map_name: the map whose assignments apply, e.g. "cluster+crf", or "cluster@63" for a tree cut at 63; if it was
            not scored, the same probe's unrefined map applies, or another one of its maps of as many clusters.
        n_clusters: number of clusters of the probe.
        classes: the training dataset's classes, which name the linear probe's ids without a class map; None if unknown.
    """

    def __init__(self, class_map: ClassMap | None, map_name: str, n_clusters: int, classes: Classes | None) -> None:
        known = class_map.classes if class_map else classes
        assignment = _assignment(class_map, map_name, n_clusters) if class_map else None
        has_names = assignment is not None or map_name.startswith("linear")
        self.classes = known if known and has_names else numbered_clusters(n_clusters)
        self.table = np.array(range(n_clusters) if assignment is None else assignment)

    def joining(self, cut: ClusterCut) -> tuple[ClusterCut, "Legend"]:
        """The probe in which clusters of one class are one cluster, and its legend.

        Probabilities of clusters with one name add up, so that a class that was cut in two wins where its parts would
        lose one by one. Those without a class stay apart: together they would win over any class.
        """
        n_classes, without = len(self.classes), self.table == NO_CLASS
        joined = copy(self)
        joined.table = np.append(np.arange(n_classes), np.full(without.sum(), NO_CLASS))
        return cut.joined(np.where(without, n_classes - 1 + np.cumsum(without), self.table).tolist()), joined

    def ids(self, clusters: np.ndarray) -> np.ndarray:
        """Map H×W clusters to class ids; −1 is no class."""
        return self.table[clusters]

    def shares(self, ids: np.ndarray) -> dict[str, float]:
        """Share of the pixels by class name, for the classes that occur, largest first."""
        # Counting is linear in the pixels; np.unique would sort them.
        counts = np.bincount(ids.ravel() - NO_CLASS, minlength=1)
        pixels: Counter[str] = Counter()  # a class may be called like another, or "no class"
        for index in np.flatnonzero(counts).tolist():
            pixels[self.name(index + NO_CLASS)] += int(counts[index])
        return {name: round(count / ids.size, 6) for name, count in pixels.most_common()}

    def name(self, class_id: int) -> str:
        """The name of a class id."""
        return NO_CLASS_NAME if class_id == NO_CLASS else self.classes.names[class_id]


def _assignment(class_map: ClassMap, map_name: str, n_clusters: int) -> list[int] | None:
    """The class of each cluster; None if the probe was not scored with as many."""
    probe = map_name.split("+")[0]
    # Refinement moves borders but keeps cluster numbers, so the assignments hold with and without it. An evaluation
    # with n_clusters scores that cut as "cluster".
    kind = probe.split(CUT_SIGN)[0]
    for known in (map_name, probe, *(name for name in class_map.assignments if name.startswith(kind))):
        assignment = class_map.assignments.get(known, [])
        if len(assignment) == n_clusters:
            return assignment
    return None


def mask_files(name: str) -> dict[str, str]:
    """The names of an image's mask files by kind."""
    return {kind: f"{name}_{kind}.png" for kind in ("ids", "color", "overlay")}


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
        >>> from eagle.inference.segmentation import Legend
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
        """The photograph under its class colours, with opaque outlines.

        Args:
            opacity: 0 shows the photograph alone, 1 the colours alone.

        Raises:
            ConfigError: another opacity.
        """
        if not 0 <= opacity <= 1:
            raise ConfigError(f"opacity: {opacity} is not from 0 to 1")
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

        Raises:
            ConfigError: ``folder`` is a file, or ``opacity`` not from 0 to 1.
        """
        if Path(folder).is_file():
            raise ConfigError(f"folder: {folder} is a file; name a folder")
        files = {kind: Path(folder) / file for kind, file in mask_files(name or self.name).items()}
        write_ids(files["ids"], self.ids, len(self.names))
        write_image(files["color"], colored_image(self.ids, self.palette))
        write_image(files["overlay"], np.asarray(self.overlay(opacity)))
        return files

    def _repr_png_(self) -> bytes:
        shown = self.overlay()
        shown.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        buffer = io.BytesIO()
        shown.save(buffer, format="PNG")
        return buffer.getvalue()
