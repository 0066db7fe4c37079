"""Class names, class colours and the class assigned to each cluster of a segmenter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eagle.data.datasets.base import Classes
from eagle.data.palette import distinct_palette
from eagle.errors import DataError

NO_CLASS = -1
NO_CLASS_NAME = "no class"


@dataclass(frozen=True)
class ClassMap:
    """Classes and, for each scored map, the class assigned to each cluster.

    Attributes:
        classes: names and palette.
        assignments: map name ("linear", "cluster", "cluster+crf", …) → one class id per cluster, −1 for no class.
    """

    classes: Classes
    assignments: dict[str, list[int]] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON and YAML: ``classes`` (a list of name and RGB color) and ``assignments``."""
        colors = self.classes.palette.tolist()
        named = [{"name": name, "color": color} for name, color in zip(self.classes.names, colors, strict=True)]
        return {"classes": named, "assignments": self.assignments}


def class_map_from_plain(plain: Mapping[str, Any]) -> ClassMap:
    """The inverse of ``ClassMap.to_plain``.

    Raises:
        KeyError, TypeError, ValueError: the data has another structure, a colour is invalid, or a cluster is assigned
            to a class that does not exist.
    """
    names = tuple(str(entry["name"]) for entry in plain["classes"])
    colors = np.array([entry["color"] for entry in plain["classes"]], dtype=int).reshape(len(names), 3)
    if colors.size and not 0 <= colors.min() <= colors.max() <= 255:
        raise ValueError("classes: a colour is not three numbers from 0 to 255")
    assignments = {str(name): [int(i) for i in classes] for name, classes in dict(plain["assignments"]).items()}
    for name, classes in assignments.items():
        if any(not NO_CLASS <= i < len(names) for i in classes):
            raise ValueError(f"assignments of {name}: a class id is not from {NO_CLASS} to {len(names) - 1}")
    return ClassMap(Classes(names, colors.astype(np.uint8)), assignments)


def numbered_clusters(n_clusters: int) -> Classes:
    """Placeholder classes for unmatched clusters: ``cluster 0``, ``cluster 1``, …, each with a distinct colour."""
    return Classes(tuple(f"cluster {i}" for i in range(n_clusters)), distinct_palette(n_clusters))


def named_clusters(path: Path, map_name: str, n_clusters: int) -> ClassMap:
    """Read a hand-written class map: a text file with one class name per cluster, one a line.

    Equal names are one class; an empty line is a cluster without a class. Class ids follow first appearance.

    Args:
        path: UTF-8 text file.
        map_name: the map whose clusters the file names.
        n_clusters: expected number of lines.

    Raises:
        DataError: the file cannot be read, contains no name, or has another number of lines.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error
    if len(lines) != n_clusters:
        raise DataError(
            f"{path}: {len(lines)} lines for {n_clusters} clusters; write one line each, empty for no class"
        )
    names = tuple(dict.fromkeys(line for line in lines if line))
    if not names:
        raise DataError(f"{path}: contains no class name; write one line per cluster")
    assignment = [names.index(line) if line else NO_CLASS for line in lines]
    return ClassMap(Classes(names, distinct_palette(len(names))), {map_name: assignment})
