"""Tables and JSON of an evaluation."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eagle.data.dataset import Classes
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.files import write_text_atomically
from eagle.tables import text_table

# Whether a protocol counts pixels of unmatched extra clusters as errors.
PROTOCOLS = {"published": False, "strict": True}


def results(metrics: Mapping[str, UnsupervisedMetrics], classes: Classes) -> dict[str, Any]:
    """Every score by map name and protocol, percentages; NaN becomes None so that the JSON is valid."""
    report: dict[str, Any] = {}
    for name, metric in metrics.items():
        report[name] = {"class_of_cluster": metric.class_of_cluster().tolist()}
        for protocol, count_extra in PROTOCOLS.items():
            scores = metric.scores(count_extra)
            report[name][protocol] = {
                "mIoU": _number(scores.miou),
                "accuracy": _number(scores.accuracy),
                "IoU": dict(zip(classes.names, map(_number, scores.iou.tolist()), strict=True)),
            }
    return report


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file under a temporary name, then rename it."""
    write_text_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def summary_table(report: Mapping[str, Any]) -> str:
    """Mean IoU and accuracy of every map under both protocols."""
    header = ["map", "mIoU", "accuracy", "strict mIoU", "strict accuracy"]
    rows = [
        [name, *(_shown(entry[protocol][score]) for protocol in PROTOCOLS for score in ("mIoU", "accuracy"))]
        for name, entry in report.items()
    ]
    return text_table(header, rows)


def class_table(report: Mapping[str, Any], classes: Classes) -> str:
    """IoU of every class for every map (published protocol)."""
    rows = [[name, *(_shown(entry["published"]["IoU"][name]) for entry in report.values())] for name in classes.names]
    return text_table(["class IoU", *report], rows)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
