"""Rows of pictures: image, label map and predicted maps side by side, with the classes' colours."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from eagle.data.dataset import Classes
from eagle.data.normalization import unnormalize
from eagle.data.palette import VOID_COLOR, colored
from eagle.evaluation.evaluator import Picture
from eagle.files import written_atomically

PANEL_INCHES = 1.9


def draw_segmentation_grid(
    path: Path, pictures: Sequence[Picture], class_of_cluster: Mapping[str, np.ndarray], classes: Classes
) -> None:
    """One row for each picture: image, label, then a column for each map, clusters shown as their classes.

    Args:
        path: PNG to write.
        pictures: what to show.
        class_of_cluster: the columns; by map name, each cluster's class (−1 = none, drawn as void).
        classes: names and palette.
    """
    columns = ["image", "label", *class_of_cluster]
    figure = Figure(figsize=(PANEL_INCHES * len(columns), PANEL_INCHES * len(pictures) + 0.7), layout="constrained")
    axes = figure.subplots(len(pictures), len(columns), squeeze=False)
    for row, picture in zip(axes, pictures, strict=True):
        rgb = unnormalize(picture.img).clamp(0, 1).permute(1, 2, 0).numpy()
        maps = [picture.label, *(table[picture.clusters[name]] for name, table in class_of_cluster.items())]
        for ax, panel in zip(row, [rgb, *(colored(ids, classes.palette) for ids in maps)], strict=True):
            ax.imshow(panel, interpolation="nearest")
            ax.set_axis_off()
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title, fontsize=9)
    colors = [tuple(color / 255) for color in classes.palette]
    handles = [Patch(color=color, label=name) for name, color in zip(classes.names, colors, strict=True)]
    handles.append(Patch(color=VOID_COLOR, label="void / unmatched"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), fontsize=7, frameon=False)
    with written_atomically(path) as temporary:
        figure.savefig(temporary, dpi=100)
