"""Predicted label maps as PNG files, named after their images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.class_map import NO_CLASS
from eagle.data.dataset import Classes, SegmentationDataset
from eagle.data.palette import colored
from eagle.files import written_atomically

# How class ids are stored: one byte a pixel, this one for pixels of clusters without a class.
NO_CLASS_ID = 255


class PredictionFolder:
    """``<root>/<map>/ids/NAME.png`` (class ids, 255 = none) and ``<root>/<map>/color/NAME.png`` for each image.

    Which class a cluster is shows at the end of an evaluation, so that ids hold clusters until ``finish``.

    Args:
        root: the folder.
        dataset: gives the images' names.
    """

    def __init__(self, root: Path, dataset: SegmentationDataset) -> None:
        self.root = root
        self._dataset = dataset

    def write(self, map_name: str, index: int, clusters: np.ndarray) -> None:
        """Keep an image's cluster ids, H×W."""
        write_ids(self._path(map_name, "ids", index), clusters)

    def finish(self, class_of_cluster: Mapping[str, np.ndarray], classes: Classes) -> None:
        """Turn the clusters of every map into classes and draw them.

        Args:
            class_of_cluster: by map name, each cluster's class, −1 for none.
            classes: names and palette.
        """
        for map_name, table in class_of_cluster.items():
            for index in range(len(self._dataset)):
                path = self._path(map_name, "ids", index)
                ids = table[np.asarray(Image.open(path))]
                write_ids(path, ids)
                write_image(self._path(map_name, "color", index), colored(ids, classes.palette))

    def _path(self, map_name: str, kind: str, index: int) -> Path:
        return self.root / map_name / kind / f"{self._dataset.name(index)}.png"


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Write H×W class or cluster ids below 255 as a one-byte PNG; −1 becomes 255."""
    _save(path, _id_image(ids))


def write_colored_ids(path: Path, ids: np.ndarray, palette: np.ndarray) -> None:
    """Write the same ids as a palette PNG: programs that read indices see the ids, viewers see colours."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    image = _id_image(ids)
    image.putpalette(table.tobytes())
    _save(path, image)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write H×W or H×W×3 uint8 under a temporary name, then rename it."""
    _save(path, Image.fromarray(pixels))


def _id_image(ids: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(ids == NO_CLASS, NO_CLASS_ID, ids).astype(np.uint8))


def _save(path: Path, image: Image.Image) -> None:
    with written_atomically(path) as temporary:
        image.save(temporary)
