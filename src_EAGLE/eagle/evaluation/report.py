"""Tables and JSON of an evaluation."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle.data.dataset import Classes
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.files import write_text_atomically

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
    """MIoU and accuracy of every map under both protocols."""
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


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, ["-" * w for w in widths], *rows)
    ]
    return "\n".join(lines)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
