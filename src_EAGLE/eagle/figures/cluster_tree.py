"""The tree of clusters with example patches at its leaves."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

# Inches of a leaf's row and of the drawing of the merges.
ROW, TREE_WIDTH = 0.34, 3.2


def tree_figure(
    merges: np.ndarray,
    cluster_of_leaf: Sequence[int],
    id_of_leaf: Sequence[int],
    examples: np.ndarray,
    palette: np.ndarray,
) -> Figure:
    """Draw the merges, in the order in which they join clusters, and a row of example patches for each leaf.

    Args:
        merges: (L − 1)×2, see ``ClusterTree``.
        cluster_of_leaf: the cluster of each leaf at the cut that the colours show.
        id_of_leaf: the id of each leaf at the finest cut, where each is a cluster of its own.
        examples: pictures of patches of each leaf, L×n×side×side×3 uint8.
        palette: a colour for each cluster, n×3 uint8.
    """
    n_leaves, n_examples = examples.shape[:2]
    width = TREE_WIDTH + ROW * n_examples
    figure = Figure(figsize=(width, ROW * n_leaves + 0.5))
    left, bottom, height = 0.02, 0.35 / figure.get_figheight(), ROW * n_leaves / figure.get_figheight()
    axes = figure.add_axes((left, bottom, (TREE_WIDTH - 0.4) / width, height))
    colors = ["#{:02x}{:02x}{:02x}".format(*palette[cluster]) for cluster in cluster_of_leaf]
    order = list(range(n_leaves))
    if n_leaves > 1:
        # Heights are ranks: the cut at n clusters lies left of the n − 1 merges that are drawn last.
        linkage = np.column_stack([merges, np.arange(1, n_leaves), np.zeros(n_leaves - 1)]).astype(float)
        # Above the cut, lines are grey.
        color_of = dict(enumerate(colors))
        for node, (first, second) in enumerate(merges.tolist(), n_leaves):
            color_of[node] = color_of[first] if color_of[first] == color_of[second] else "#888888"
        with mpl.rc_context({"lines.linewidth": 1.2}):
            drawn = dendrogram(
                linkage, orientation="left", ax=axes, no_labels=True, link_color_func=color_of.__getitem__
            )
        order = drawn["leaves"]
    for row, leaf in enumerate(order):
        text = f"{cluster_of_leaf[leaf]} · {id_of_leaf[leaf]}"
        axes.text(0, 10 * row + 5, text, fontsize=6, color="0.25", va="bottom", ha="right", clip_on=False)
    axes.set_axis_off()
    pictures = figure.add_axes((1 - ROW * n_examples / width - 0.01, bottom, ROW * n_examples / width, height))
    side = examples.shape[2]
    grid = examples[order[::-1]].transpose(0, 2, 1, 3, 4).reshape(n_leaves * side, n_examples * side, 3)
    pictures.imshow(grid, aspect="auto", interpolation="nearest")
    pictures.set_axis_off()
    note = f"cluster of {len(set(cluster_of_leaf))} (colours) · cluster of {n_leaves}"
    figure.text(0.02, 0.1 / figure.get_figheight(), note, fontsize=8)
    return figure
