"""Draw the legend of a folder of masks: each class's colour and mean share."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from eagle.data.labels import NO_CLASS, VOID_COLOR
from eagle.figures.bars import frequencies_figure
from eagle.figures.confusion import write_figure
from eagle.inference.masks import Legend


def write_legend(path: Path, legend: Legend, shares: Iterable[Mapping[str, float]]) -> None:
    """Draw one bar per class in its mask colour; the bar's length is the class's mean share of an image.

    Args:
        path: PNG to write.
        legend: names and colours of the masks.
        shares: for each image, the result of ``Legend.shares``.
    """
    images = list(shares)
    names, colors = [*legend.classes.names], [*legend.classes.palette]
    if any(legend.name(NO_CLASS) in image for image in images):
        names.append(legend.name(NO_CLASS))
        colors.append(np.array(VOID_COLOR, dtype=np.uint8))
    total = np.array([sum(image.get(name, 0.0) for image in images) for name in names])
    title = f"mean share of {len(images)} images"
    write_figure(path, frequencies_figure(names, np.stack(colors), total, np.zeros(0), title))
