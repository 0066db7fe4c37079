"""An evaluation as one HTML page that needs nothing but a browser."""

import base64
import hashlib
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only

from eagle.data.datasets.base import Classes
from eagle.data.labels import NO_CLASS, NO_CLASS_NAME, VOID_COLOR, colored, overlay
from eagle.data.views import EvaluationViews, unnormalize
from eagle.evaluation.details import ImageResult, best_median_worst
from eagle.evaluation.evaluator import Evaluation, most_refined
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.evaluation.score_tables import PROTOCOLS, shown_score
from eagle.files import write_text_atomically
from eagle.maps.probe_maps import without_cuts

TEMPLATE = "report.html.jinja"
IMAGES_EACH = 3
# With more classes, only the most refined map's confusion matrix is drawn.
MOST_CLASSES_OF_ALL_MATRICES = 64
# How many labels of a cluster and how many confusions are listed, and the least percentage for each.
MOST_LABELS, MOST_CONFUSIONS, LEAST_SHARE = 3, 10, 5.0
# Pictures are shrunk until their longer side has this many pixels.
MOST_PIXELS = 560
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 85, "subsampling": 0}


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
        evaluation: with ``detailed``.
        views: the evaluated images; a few are read again.
        configurations: texts by title, e.g. the YAML of training and evaluation.

    Raises:
        DataError: an image can no longer be read.
    """
    scores, metrics, classes = content["scores"], evaluation.metrics, views.dataset.classes
    refined = metrics[most_refined(list(metrics))]
    # The last map, which is the most refined one, is the headline.
    names = without_cuts(reversed(scores))
    differ = any(entry["published"] != entry["strict"] for entry in scores.values())
    environment = Environment(
        loader=PackageLoader("eagle", "evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"score": shown_score, "digest": _digest}
    text = environment.get_template(TEMPLATE).render(
        score=shown_score,
        share_of=_share,
        content=content,
        names=names,
        protocols=list(PROTOCOLS) if differ else list(PROTOCOLS)[:1],
        extra_clusters=refined.extra_clusters,
        classes=_named(classes),
        labelled_shares=_percent(refined.confusion.cpu().numpy().sum(axis=0)).tolist(),
        confusions={
            name: _confusion(metrics[name], len(classes))
            for name in (names if len(classes) <= MOST_CLASSES_OF_ALL_MATRICES else names[:1])
        },
        image_groups=_image_groups(evaluation.images, views, refined.class_of_cluster()),
        clusters=_clusters(refined, len(classes)),
        configurations=configurations,
        date=datetime.now().astimezone(),
    )
    # File names may contain bytes that are not valid UTF-8.
    write_text_atomically(path, text.encode(errors="backslashreplace").decode())


def _named(classes: Classes) -> list[dict[str, str]]:
    """Name and CSS colour of each class, then of no class."""
    colors = [f"#{bytes(color).hex()}" for color in (*classes.palette.tolist(), VOID_COLOR)]
    return [{"name": n, "color": c} for n, c in zip((*classes.names, NO_CLASS_NAME), colors, strict=True)]


def _confusion(metric: UnsupervisedMetrics, n_classes: int) -> dict[str, Any]:
    """Confusion matrix of a map in percent of each label's pixels.

    Returns:
        ``rows``: the shares by label, with "no class" last if the map has clusters without one; None for a label that
        no pixel has. ``largest``: the most frequent mistakes as (label, prediction, percent of the label's pixels).
    """
    assigned = _with_no_class_last(metric.class_of_cluster(), n_classes)
    by_label = np.zeros((n_classes, n_classes + 1), dtype=np.int64)
    np.add.at(by_label.T, assigned, metric.confusion.cpu().numpy())
    n_columns = max(n_classes, assigned.max() + 1)
    rows = [_percent(row[:n_columns]).tolist() if row.any() else None for row in by_label]
    mistakes = [
        (label, predicted, share)
        for label, row in enumerate(rows)
        for predicted, share in enumerate(row or [])
        if predicted != label and share >= LEAST_SHARE
    ]
    return {"rows": rows, "largest": sorted(mistakes, key=lambda mistake: -mistake[2])[:MOST_CONFUSIONS]}


def _clusters(metric: UnsupervisedMetrics, n_classes: int) -> list[dict[str, Any]]:
    """Of each cluster its ``class``, ``share`` of all labelled pixels, ``purity`` and most frequent ``labels``.

    Purity is the share of its labelled pixels whose label is its class; None without such pixels or without a class.
    """
    counts = metric.confusion.cpu().numpy()
    assigned = _with_no_class_last(metric.class_of_cluster(), n_classes).tolist()
    shares = _percent(counts.sum(axis=1)).tolist()
    rows = []
    for class_id, share, labels in zip(assigned, shares, map(_percent, counts), strict=True):
        largest = np.argsort(-labels, kind="stable")[:MOST_LABELS].tolist()
        purity = float(labels[class_id]) if class_id < n_classes and labels.any() else None
        listed = [(label, float(labels[label])) for label in largest if labels[label] >= LEAST_SHARE]
        rows.append({"class": class_id, "share": share, "purity": purity, "labels": listed})
    return rows


def _image_groups(
    results: list[ImageResult], views: EvaluationViews, class_of_cluster: np.ndarray
) -> dict[str, list[dict[str, Any]]]:
    chosen = best_median_worst(results, class_of_cluster, IMAGES_EACH)
    return {
        title: [{"accuracy": accuracy, **_shown_image(views, image, class_of_cluster)} for accuracy, image in images]
        for title, images in chosen.items()
        if images
    }


def _shown_image(views: EvaluationViews, result: ImageResult, class_of_cluster: np.ndarray) -> dict[str, Any]:
    """Read an evaluated image again: its ``name``, ``size``, ``panels`` as data URIs, and class ``ids`` in its maps."""
    sample, classes = views[result.index], views.dataset.classes
    photograph = _photograph(sample["img"])
    shrink = min(1.0, MOST_PIXELS / max(photograph.size))
    size = (max(1, round(photograph.width * shrink)), max(1, round(photograph.height * shrink)))
    photograph = photograph.resize(size, Image.Resampling.LANCZOS)
    maps = [sample["label"].numpy(), class_of_cluster[result.clusters()]]
    ids = np.unique(_with_no_class_last(np.stack(maps), len(classes))).tolist()
    label, predicted = (
        np.asarray(Image.fromarray(part.astype(np.int32)).resize(size, Image.Resampling.NEAREST)) for part in maps
    )
    panels = {
        "image": _data_uri(photograph, **_JPEG),
        # Lossless, so that every colour stays a class colour.
        "label": _data_uri(Image.fromarray(colored(label, classes.palette)), format="PNG", optimize=True),
        "prediction": _data_uri(Image.fromarray(colored(predicted, classes.palette)), format="PNG", optimize=True),
        "overlay": _data_uri(Image.fromarray(overlay(photograph, predicted, classes.palette)), **_JPEG),
    }
    return {"name": views.dataset.name(result.index), "size": size, "panels": panels, "ids": ids}


def _photograph(img: Any) -> Image.Image:
    """Convert a normalised 3×H×W tensor back to an RGB picture."""
    pixels = (unnormalize(img).clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _data_uri(image: Image.Image, **options: Any) -> str:
    """Encode an image as a ``data:`` URI; options as for PIL's ``save``."""
    file = io.BytesIO()
    image.save(file, **options)
    return f"data:image/{options['format'].lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _with_no_class_last(ids: np.ndarray, n_classes: int) -> np.ndarray:
    return np.where(ids == NO_CLASS, n_classes, ids)


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
