"""Render the report from its template."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pytorch_lightning.utilities import rank_zero_only

from eagle.data.loading.views import EvaluationViews
from eagle.evaluation.details import Details
from eagle.evaluation.evaluator import Evaluation
from eagle.evaluation.image_results import best_median_worst
from eagle.evaluation.score_tables import PROTOCOLS
from eagle.files import write_text_atomically
from eagle.reports.html.pictures import example_windows, shown_image
from eagle.reports.html.tables import VOID_NAME, class_rows, cluster_rows, confusion, legend
from eagle.training.run_record import code_version

IMAGES_EACH = 3
# With more classes, only the most refined map's confusion matrix is drawn.
MOST_CLASSES_OF_ALL_MATRICES = 64
# Number of shades in a confusion matrix between 0 % and 100 %.
SHADES = 10


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
        content: the evaluation's JSON, from which all scores are taken.
        evaluation: metrics and Details.
        views: the evaluated images; a few are read again.
        configurations: texts by title, e.g. the YAML of training and evaluation.

    Raises:
        DataError: an image can no longer be read.
    """
    details = evaluation.details
    assert details is not None, "the report needs evaluate(…, detailed=True)"
    metrics, classes = evaluation.metrics, views.dataset.classes
    refined = metrics[details.map_name]
    matrices = metrics if len(classes) <= MOST_CLASSES_OF_ALL_MATRICES else {details.map_name: refined}
    text = _render(
        content=content,
        map_name=details.map_name,
        n_clusters=refined.n_classes + refined.extra_clusters,
        extra_clusters=refined.extra_clusters,
        protocols=list(PROTOCOLS),
        n_classes=len(classes),
        picture_legend=legend(classes, VOID_NAME),
        class_tables={
            name: class_rows(content["scores"], name, refined, classes) for name in _shown_protocols(content)
        },
        confusions={name: confusion(metric, classes) for name, metric in matrices.items()},
        image_groups=_image_groups(details, views, evaluation),
        clusters=cluster_rows(refined, classes),
        windows=example_windows(views, details.examples),
        configurations=configurations,
        version=code_version(),
        date=datetime.now().astimezone(),
    )
    # File names may contain bytes that are not valid UTF-8.
    write_text_atomically(path, text.encode(errors="backslashreplace").decode())


def _shown_protocols(content: Mapping[str, Any]) -> list[str]:
    """Both protocols if any score differs between them, else the first; only pixels of extra clusters differ."""
    differ = any(entry["published"] != entry["strict"] for entry in content["scores"].values())
    return list(PROTOCOLS) if differ else list(PROTOCOLS)[:1]


def _image_groups(details: Details, views: EvaluationViews, evaluation: Evaluation) -> dict[str, list[Any]]:
    class_of_cluster = evaluation.metrics[details.map_name].class_of_cluster()
    chosen = best_median_worst(details.images, class_of_cluster, IMAGES_EACH)
    return {
        title: [shown_image(views, result, accuracy, class_of_cluster) for accuracy, result in images]
        for title, images in chosen.items()
        if images
    }


def _render(**values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("eagle.reports", "html"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"score": _score, "share": _share, "shade": _shade}
    style, script = (_source(environment, name) for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("page.html.jinja")
    own = {"style": Markup(style), "script": Markup(script)}  # noqa: S704  files of this package
    return template.render(**own, script_digest=digest, **values)


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    """Format with one decimal; small positive values are shown as <0.1, not 0.0."""
    if value is None:
        return "–"
    return "<0.1" if 0 < value < 0.05 else f"{value:.1f}"


def _shade(value: float) -> int:
    return min(SHADES, int(value / 100 * SHADES + 0.5))
