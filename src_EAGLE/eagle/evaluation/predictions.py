"""Predicted label maps as PNG files, named after their images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.labels import colored, write_ids, write_image


class PredictionFolder:
    """``<root>/<map>/ids/NAME.png`` (class ids; see ``write_ids``) and ``<root>/<map>/color/NAME.png`` for each image.

    The matching is known only after the last image: ``ids`` holds cluster ids until ``finish``.

    Args:
        root: the folder.
        dataset: the evaluated dataset, for the image names.
    """

    def __init__(self, root: Path, dataset: SegmentationDataset) -> None:
        self.root = root
        self._dataset = dataset

    def write(self, map_name: str, index: int, clusters: np.ndarray) -> None:
        """Write an image's H×W cluster ids."""
        write_ids(self._path(map_name, "ids", index), clusters, int(clusters.max()) + 1)

    def finish(self, class_of_cluster: Mapping[str, np.ndarray], classes: Classes) -> None:
        """Replace cluster ids by class ids and write the colour images.

        Args:
            class_of_cluster: class of each cluster (−1 for none), by map name.
            classes: names and palette.
        """
        for map_name, table in class_of_cluster.items():
            for index in range(len(self._dataset)):
                path = self._path(map_name, "ids", index)
                ids = table[np.asarray(Image.open(path))]
                write_ids(path, ids, len(classes))
                write_image(self._path(map_name, "color", index), colored(ids, classes.palette))

    def _path(self, map_name: str, kind: str, index: int) -> Path:
        return self.root / map_name / kind / f"{self._dataset.name(index)}.png"
