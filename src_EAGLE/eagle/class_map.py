"""What a segmenter's clusters mean: class names and colours, and each cluster's class."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eagle.data.dataset import Classes
from eagle.data.palette import distinct_palette

NO_CLASS = -1


@dataclass(frozen=True)
class ClassMap:
    """Classes, and for each map that was scored the class of each of its clusters.

    Attributes:
        classes: names and palette.
        assignments: by map name ("linear", "cluster", "cluster+crf", …), one class id for each cluster, −1 for none.
    """

    classes: Classes
    assignments: dict[str, list[int]] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """For JSON and YAML: ``classes`` (a list of name and RGB color) and ``assignments``."""
        colors = self.classes.palette.tolist()
        named = [{"name": name, "color": color} for name, color in zip(self.classes.names, colors, strict=True)]
        return {"classes": named, "assignments": self.assignments}


def class_map_from_plain(plain: Mapping[str, Any]) -> ClassMap:
    """The inverse of ``ClassMap.to_plain``; raises KeyError, TypeError or ValueError where the form is another."""
    names = tuple(str(entry["name"]) for entry in plain["classes"])
    palette = np.array([entry["color"] for entry in plain["classes"]], dtype=np.uint8).reshape(len(names), 3)
    assignments = {str(name): [int(i) for i in classes] for name, classes in plain["assignments"].items()}
    return ClassMap(Classes(names, palette), assignments)


def numbered_clusters(n_clusters: int) -> Classes:
    """What clusters without classes are shown as: ``cluster 0``, ``cluster 1``, …, each in a colour of its own."""
    return Classes(tuple(f"cluster {i}" for i in range(n_clusters)), distinct_palette(n_clusters))
