"""Figures of segmented images: image, label map and predicted maps side by side, with a legend of the classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from eagle.data.datasets.base import Classes
from eagle.data.loading.transforms import unnormalize
from eagle.evaluation.picture import Picture
from eagle.figures.panel_grid import PanelRow, class_legend, panel_grid
from eagle.figures.panels import ImagePanel, LabelPanel
from eagle.figures.rendering import write_figure

VOID_NAME = "void / unmatched"


def draw_segmentation_grid(
    path: Path, pictures: Sequence[Picture], class_of_cluster: Mapping[str, np.ndarray], classes: Classes
) -> None:
    """Write ``segmentation_grid`` as PNG."""
    write_figure(path, segmentation_grid(pictures, class_of_cluster, classes))


def segmentation_grid(
    pictures: Sequence[Picture],
    class_of_cluster: Mapping[str, np.ndarray],
    classes: Classes,
    labelled: bool = True,
    title: str = "",
) -> Figure:
    """One row per picture: image, label, then one column per map, in which clusters are shown as their classes.

    Args:
        pictures: at least one.
        class_of_cluster: the class of each cluster by map name, one column each (−1 = none, drawn as void).
        classes: names and palette; the legend lists the classes that are shown.
        labelled: whether the pictures have labels to show.
        title: above everything.
    """
    rows: list[PanelRow] = []
    shown: list[np.ndarray] = []
    for picture in pictures:
        maps = {"label": picture.label} if labelled else {}
        maps |= {name: table[picture.clusters[name]] for name, table in class_of_cluster.items()}
        pixels = (255 * unnormalize(picture.img).clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
        labels = [LabelPanel(name, name, ids, classes.palette) for name, ids in maps.items()]
        rows.append(PanelRow([ImagePanel("image", "image", Image.fromarray(pixels)), *labels]))
        shown += maps.values()
    return panel_grid(rows, class_legend(shown, classes, VOID_NAME), title=title)
