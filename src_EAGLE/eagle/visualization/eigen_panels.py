"""The panels of the paper's qualitative figure: image, eigenvectors, EiCue, k-means of the keys, final clusters."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Patch
from PIL import Image

from eagle.data.labels import NO_CLASS_NAME, distinct_palette
from eagle.figures.panel_grid import PanelRow, class_legend
from eagle.figures.panels import EigenvectorPanel, ImagePanel, LabelPanel, Panel
from eagle.inference.masks import Legend
from eagle.visualization.decomposition import Decomposition

CLUSTERS, CLUSTERS_TITLE = "clusters", "final clusters"


def eigen_panels(
    image: Image.Image, decomposition: Decomposition, clusters: np.ndarray | None, legend: Legend | None
) -> list[Panel]:
    """The panels of one image, in the paper's order.

    Args:
        image: RGB.
        decomposition: eigenvectors, EiCue and k-means of the image.
        clusters: H×W final class ids, −1 for none; None without a trained segmenter.
        legend: names and colours of those ids.
    """
    panels: list[Panel] = [ImagePanel("image", "image", image)]
    for number, values in enumerate(decomposition.eigenvectors, start=1):
        panels.append(EigenvectorPanel(f"eigenvector_{number}", f"eigenvector {number}", values))
    palette = distinct_palette(1 + max(int(decomposition.cue.max()), int(decomposition.kmeans.max())))
    panels.append(LabelPanel("eicue", "EiCue", decomposition.cue, palette))
    panels.append(LabelPanel("kmeans", "k-means of keys", decomposition.kmeans, palette))
    if clusters is not None and legend is not None:
        panels.append(LabelPanel(CLUSTERS, CLUSTERS_TITLE, clusters, legend.classes.palette))
    return panels


def clusters_legend(rows: Sequence[PanelRow], legend: Legend | None) -> list[Patch]:
    """The classes shown in the final clusters of these rows; empty without a trained segmenter."""
    panels = [panel for row in rows for panel in row.panels if isinstance(panel, LabelPanel) and panel.kind == CLUSTERS]
    return class_legend([panel.ids for panel in panels], legend.classes, NO_CLASS_NAME) if legend else []


def eigen_note(laplacian: str, n_clusters: int | None) -> str:
    """The note below the figure: how the panels were made.

    Args:
        laplacian: a Decomposer's note on the Laplacian and EiCue.
        n_clusters: number of k-means clusters; None for as many as EiCue has labels.
    """
    number = "as many clusters as EiCue has labels" if n_clusters is None else f"{n_clusters} clusters"
    return (
        f"{laplacian} The trivial eigenvector is left out; signs are fixed, and each panel has its own colour range. "
        f"Colours of EiCue and k-means are comparable within a row only; k-means has {number}, and each takes the "
        "colour of the EiCue label that it overlaps most."
    )
