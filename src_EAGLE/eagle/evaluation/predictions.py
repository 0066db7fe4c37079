"""Predicted label maps as PNG files, named after their images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from eagle.class_map import NO_CLASS
from eagle.data.dataset import Classes, SegmentationDataset
from eagle.data.palette import colored
from eagle.errors import DataError
from eagle.files import written_atomically

# The most ids that one and two bytes a pixel hold: the highest number stands for pixels of clusters without a class.
MOST_BYTE_IDS, MOST_IDS = 255, 65535


class PredictionFolder:
    """``<root>/<map>/ids/NAME.png`` (class ids; see ``write_ids``) and ``<root>/<map>/color/NAME.png`` for each image.

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
        write_ids(self._path(map_name, "ids", index), clusters, int(clusters.max()) + 1)

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
                write_ids(path, ids, len(classes))
                write_image(self._path(map_name, "color", index), colored(ids, classes.palette))

    def _path(self, map_name: str, kind: str, index: int) -> Path:
        return self.root / map_name / kind / f"{self._dataset.name(index)}.png"


def id_type(n_ids: int) -> type[np.uint8] | type[np.uint16]:
    """The integers that ids of so many classes or clusters are stored as; raises DataError where none holds them."""
    if n_ids > MOST_IDS:
        raise DataError(f"{n_ids} classes or clusters: a label map holds {MOST_IDS} at most")
    return np.uint8 if n_ids <= MOST_BYTE_IDS else np.uint16


def write_ids(path: Path, ids: np.ndarray, n_ids: int) -> None:
    """Write H×W class or cluster ids as a grey PNG: 8 bits for up to 255 ids, else 16 bits.

    Args:
        path: of the file.
        ids: in [0, n_ids); −1, for none, becomes the highest number, 255 or 65535.
        n_ids: classes or clusters that there are, which decides the format of all images alike.
    """
    _save(path, _id_image(ids, n_ids))


def write_colored_ids(path: Path, ids: np.ndarray, palette: np.ndarray) -> None:
    """Write H×W ids, −1 for none, in the colours of an n×3 palette.

    Up to 255 ids as a palette PNG, in which programs that read indices see the ids and viewers the colours; more do not
    fit one and are written as RGB.
    """
    if len(palette) > MOST_BYTE_IDS:
        write_image(path, colored(ids, palette))
        return
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    image = _id_image(ids, len(palette))
    image.putpalette(table.tobytes())
    _save(path, image)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write H×W or H×W×3 uint8 under a temporary name, then rename it."""
    _save(path, Image.fromarray(pixels))


def _id_image(ids: np.ndarray, n_ids: int) -> Image.Image:
    kind = id_type(n_ids)
    stored = ids.astype(kind)
    stored[ids == NO_CLASS] = np.iinfo(kind).max
    return Image.fromarray(stored)


def _save(path: Path, image: Image.Image) -> None:
    with written_atomically(path) as temporary:
        image.save(temporary)
