"""The paper's row of pictures: image, eigenvectors, EiCue, k-means of the keys, final clusters."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from eagle.data.palette import colored, distinct_palette
from eagle.figures.panel_grid import ColorLegend
from eagle.figures.panels import EigenvectorPanel, ImagePanel, LabelPanel, Panel
from eagle.inference.masks import Legend
from eagle.visualization.decomposition import Decomposition

CLUSTERS = "clusters"


def eigen_panels(
    image: Image.Image, decomposition: Decomposition, clusters: np.ndarray | None, legend: Legend | None
) -> list[Panel]:
    """The panels of one image, in the paper's order.

    Args:
        image: RGB.
        decomposition: of the image.
        clusters: H×W final class ids, −1 for none; None without a trained segmenter.
        legend: of those ids.
    """
    panels: list[Panel] = [ImagePanel("image", "image", image)]
    for number, values in enumerate(decomposition.eigenvectors, start=1):
        panels.append(EigenvectorPanel(f"eigenvector_{number}", f"eigenvector {number}", values))
    palette = distinct_palette(1 + max(int(decomposition.cue.max()), int(decomposition.kmeans.max())))
    panels.append(LabelPanel("eicue", "EiCue", decomposition.cue, palette))
    panels.append(LabelPanel("kmeans", "k-means of keys", decomposition.kmeans, palette))
    if clusters is not None and legend is not None:
        panels.append(LabelPanel(CLUSTERS, "final clusters", clusters, legend.classes.palette))
    return panels


def class_colors(rows: Sequence[Sequence[Panel]], legend: Legend | None) -> ColorLegend | None:
    """The classes that the final clusters of some rows show, in order of ids; None where there are no such clusters."""
    maps = [panel for row in rows for panel in row if isinstance(panel, LabelPanel) and panel.kind == CLUSTERS]
    if legend is None or not maps:
        return None
    shown = {class_id for panel in maps for class_id in np.unique(panel.ids).tolist()}
    in_order = sorted(shown, key=lambda class_id: (class_id < 0, class_id))
    colors = colored(np.array(in_order), legend.classes.palette) / 255
    return ColorLegend(maps[0].title, [legend.name(class_id) for class_id in in_order], colors)


def eigen_note(laplacian: str, n_clusters: int | None) -> str:
    """What a reader of the figure has to know.

    Args:
        laplacian: what it and the cue are made of, as a Decomposer says.
        n_clusters: of k-means; None for as many as the cue has labels.
    """
    number = "as many clusters as the cue has labels" if n_clusters is None else f"{n_clusters} clusters"
    return (
        f"{laplacian} Eigenvectors are those after the trivial one, signs fixed, each in colours of its own range. "
        f"EiCue and k-means: colours stand for labels within a row; k-means has {number}, in the colours of those that "
        "they overlap most."
    )
