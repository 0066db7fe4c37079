"""An evaluation as one HTML page that needs nothing but a browser."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS, NO_CLASS_NAME, VOID_COLOR, colored, overlay
from eagle.data.views import EvaluationViews, photograph
from eagle.evaluation.evaluator import Evaluation, ImageResult
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.evaluation.tables import PROTOCOLS, shown_score
from eagle.files import write_text_atomically
from eagle.maps.probe_maps import without_cuts

TEMPLATE = "report.html.jinja"
IMAGES_EACH = 3
# How many labels of a cluster are listed, and the least percentage for each.
MOST_LABELS, LEAST_SHARE = 3, 5.0
# Pictures are shrunk until their longer side has this many pixels.
MOST_PIXELS = 560
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 85, "subsampling": 0}
# Lossless, so that every colour stays a class colour.
_PNG: dict[str, Any] = {"format": "PNG", "optimize": True}


@rank_zero_only
def write_report(
    path: Path,
    content: Mapping[str, Any],
    evaluation: Evaluation,
    views: EvaluationViews,
    configurations: Mapping[str, str],
) -> None:
    """Write an evaluation as one self-contained HTML file.

    Args:
        path: the file to write.
        content: the evaluation's JSON, from which all scores are taken; its optional ``code`` is the code's version.
        evaluation: with the most refined map of every image.
        views: the evaluated images; a few are read again.
        configurations: texts by title, e.g. the YAML of training and evaluation.

    Raises:
        DataError: an image can no longer be read.
    """
    scores, classes = content["scores"], views.dataset.classes
    # The last map, which is the most refined one, is the headline.
    names = without_cuts(reversed(scores))
    refined = evaluation.metrics[names[0]]
    differ = any(entry["published"] != entry["strict"] for entry in scores.values())
    environment = Environment(
        loader=PackageLoader("eagle", "evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template(TEMPLATE).render(
        score=shown_score,
        share_of=_share,
        digest=_digest,
        content=content,
        names=names,
        protocols=list(PROTOCOLS) if differ else list(PROTOCOLS)[:1],
        extra_clusters=refined.extra_clusters,
        classes=_named(classes),
        labelled_shares=_percent(refined.confusion.cpu().numpy().sum(axis=0)).tolist(),
        confusion=_confusion(refined),
        image_groups=_image_groups(evaluation.images, views, names[0], refined.class_of_cluster()),
        clusters=_clusters(refined),
        configurations=configurations,
        date=datetime.now().astimezone(),
    )
    # File names may contain bytes that are not valid UTF-8.
    write_text_atomically(path, text.encode(errors="backslashreplace").decode())


def _named(classes: Classes) -> list[dict[str, str]]:
    """Name and CSS colour of each class, then of no class."""
    colors = [f"#{bytes(color).hex()}" for color in (*classes.palette.tolist(), VOID_COLOR)]
    return [{"name": n, "color": c} for n, c in zip((*classes.names, NO_CLASS_NAME), colors, strict=True)]


def _confusion(metric: UnsupervisedMetrics) -> list[list[float] | None]:
    """Rows of a map's confusion matrix, in percent of each label's pixels; None for a label that no pixel has.

    "No class" is the last column if the map has clusters without one.
    """
    n_classes, assigned = metric.n_classes, metric.class_of_cluster()
    by_label = np.zeros((n_classes, n_classes + (NO_CLASS in assigned)), dtype=np.int64)
    np.add.at(by_label.T, assigned, metric.confusion.cpu().numpy())  # NO_CLASS is the last column
    return [_percent(row).tolist() if row.any() else None for row in by_label]


def _clusters(metric: UnsupervisedMetrics) -> list[dict[str, Any]]:
    """Of each cluster its ``class``, ``share`` of all labelled pixels, ``purity`` and most frequent ``labels``.

    Purity is the share of its labelled pixels whose label is its class; None without such pixels or without a class.
    """
    counts = metric.confusion.cpu().numpy()
    rows = []
    for class_id, share, labels in zip(
        metric.class_of_cluster().tolist(), _percent(counts.sum(axis=1)).tolist(), map(_percent, counts), strict=True
    ):
        largest = np.argsort(-labels, kind="stable")[:MOST_LABELS].tolist()
        purity = float(labels[class_id]) if class_id != NO_CLASS and labels.any() else None
        listed = [(label, float(labels[label])) for label in largest if labels[label] >= LEAST_SHARE]
        rows.append({"class": class_id, "share": share, "purity": purity, "labels": listed})
    return rows


def _image_groups(
    results: list[ImageResult], views: EvaluationViews, map_name: str, class_of_cluster: np.ndarray
) -> dict[str, list[dict[str, Any]]]:
    accuracies = [result.accuracy(map_name, class_of_cluster) for result in results]
    groups: dict[str, list[dict[str, Any]]] = {}
    for title, places in best_median_worst(accuracies, IMAGES_EACH).items():
        for place in places:
            predicted = class_of_cluster[results[place].ids(map_name)]
            shown = _shown_image(views, results[place].index, predicted)
            groups.setdefault(title, []).append({"accuracy": accuracies[place], **shown})
    return groups


def best_median_worst(accuracies: Sequence[float], n_each: int) -> dict[str, list[int]]:
    """The places of the highest, middle and lowest accuracies, without NaN; ties go to the lower place.

    Returns:
        "best" (best first), "median" and "worst" (worst first), disjoint, of ``n_each`` places or a third of all.
    """
    known = [place for place, accuracy in enumerate(accuracies) if not np.isnan(accuracy)]
    ranked = sorted(known, key=lambda place: -accuracies[place])
    n = min(n_each, -(-len(ranked) // 3))
    best, rest = ranked[:n], ranked[n:]
    worst, rest = rest[::-1][:n], rest[: max(len(rest) - n, 0)]
    start = max((len(rest) - n) // 2, 0)
    return {"best": best, "median": rest[start : start + n], "worst": worst}


def _shown_image(views: EvaluationViews, index: int, predicted: np.ndarray) -> dict[str, Any]:
    """Read an evaluated image again: its ``name``, ``size``, ``panels`` as data URIs, and class ``ids`` in its maps."""
    sample, palette = views[index], views.dataset.classes.palette
    image = photograph(sample["img"])
    shrink = min(1.0, MOST_PIXELS / max(image.size))
    size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    maps = [sample["label"].numpy(), predicted]
    label, predicted = (
        np.asarray(Image.fromarray(part.astype(np.int32)).resize(size, Image.Resampling.NEAREST)) for part in maps
    )
    panels = {
        "image": _data_uri(image, **_JPEG),
        "label": _data_uri(Image.fromarray(colored(label, palette)), **_PNG),
        "prediction": _data_uri(Image.fromarray(colored(predicted, palette)), **_PNG),
        "overlay": _data_uri(Image.fromarray(overlay(image, predicted, palette)), **_JPEG),
    }
    ids = np.unique(np.mod(maps, len(palette) + 1)).tolist()  # "no class" last
    return {"name": views.dataset.name(index), "size": size, "panels": panels, "ids": ids}


def _data_uri(image: Image.Image, **options: Any) -> str:
    """Encode an image as a ``data:`` URI; options as for PIL's ``save``."""
    file = io.BytesIO()
    image.save(file, **options)
    return f"data:image/{options['format'].lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(counts: np.ndarray) -> np.ndarray:
    """Counts in percent of their sum; zeros if the sum is zero."""
    return 100 * counts / max(counts.sum(), 1)


def _share(value: float | None) -> str:
    """Format with one decimal; small positive values are shown as <0.1, not 0.0."""
    if value is None:
        return "–"
    return "<0.1" if 0 < value < 0.05 else f"{value:.1f}"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
