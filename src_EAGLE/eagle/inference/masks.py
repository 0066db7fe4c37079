"""What a label map is written as: ids, colours, an overlay, and shares of the image."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.class_map import NO_CLASS, ClassMap, numbered_clusters
from eagle.data.datasets.base import Classes
from eagle.data.label_images import overlay, write_colored_ids, write_ids, write_image
from eagle.evaluation.evaluator import CRF_SUFFIX

NO_CLASS_NAME = "no class"


class Legend:
    """Names and colours of the ids that masks hold.

    Args:
        class_map: of the checkpoint; None or one without this probe's assignments numbers the clusters.
        map_name: which assignments count, e.g. "cluster+crf"; where that map was not scored, those of the same probe
            with or without CRF.
        n_clusters: clusters of the probe.
        classes: of the dataset that the checkpoint was trained on, where they are known without a class map.
    """

    def __init__(self, class_map: ClassMap | None, map_name: str, n_clusters: int, classes: Classes | None) -> None:
        assignment = _assignment(class_map, map_name) if class_map else None
        if assignment is None and map_name.startswith("linear") and (class_map or classes):
            assignment = list(range(n_clusters))
        if assignment is None:
            assignment = list(range(n_clusters))
            self.classes = numbered_clusters(n_clusters)
        else:
            self.classes = class_map.classes if class_map else classes  # type: ignore[assignment]
        self._table = np.array(assignment)

    def ids(self, clusters: np.ndarray) -> np.ndarray:
        """H×W clusters → class ids, −1 for none."""
        return self._table[clusters]

    def shares(self, ids: np.ndarray) -> dict[str, float]:
        """Share of the pixels of each class that occurs, by name, the largest first."""
        counts = Counter(dict(zip(*(a.tolist() for a in np.unique(ids, return_counts=True)), strict=True)))
        return {self.name(class_id): round(count / ids.size, 6) for class_id, count in counts.most_common()}

    def name(self, class_id: int) -> str:
        """A class's name."""
        return NO_CLASS_NAME if class_id == NO_CLASS else self.classes.names[class_id]


def _assignment(class_map: ClassMap, map_name: str) -> list[int] | None:
    """Each cluster's class; None where the probe was not scored."""
    plain = map_name.removesuffix(CRF_SUFFIX)
    # The CRF moves borders and renumbers nothing: a cluster means the same with it and without.
    for name in (map_name, plain, plain + CRF_SUFFIX):
        if name in class_map.assignments:
            return class_map.assignments[name]
    return None


def write_masks(folder: Path, name: str, photograph: Image.Image, ids: np.ndarray, classes: Classes) -> dict[str, str]:
    """Write ``NAME_ids.png``, ``NAME_color.png`` and ``NAME_overlay.png``; their names by kind.

    Args:
        folder: is made where it is missing.
        name: of the image.
        photograph: RGB.
        ids: H×W class ids, −1 for none; of the photograph's size.
        classes: names and palette.
    """
    files = {kind: f"{name}_{kind}.png" for kind in ("ids", "color", "overlay")}
    write_ids(folder / files["ids"], ids, len(classes))
    write_colored_ids(folder / files["color"], ids, classes.palette)
    write_image(folder / files["overlay"], overlay(photograph, ids, classes.palette))
    return files
