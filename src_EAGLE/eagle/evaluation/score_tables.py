"""Score tables and JSON of an evaluation."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from eagle.console import text_table
from eagle.data.datasets.base import Classes
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.files import write_text_atomically
from eagle.maps.probe_maps import CUT_SIGN, without_cuts

# Protocol → whether pixels of unmatched extra clusters count as errors.
PROTOCOLS = {"published": False, "strict": True}


def results(metrics: Mapping[str, UnsupervisedMetrics], classes: Classes) -> dict[str, Any]:
    """All scores in percent, by map name and protocol; NaN becomes None, as JSON has no NaN."""
    report: dict[str, Any] = {name: {} for name in metrics}
    for name, metric in metrics.items():
        for protocol, count_extra in PROTOCOLS.items():
            scores = metric.scores(count_extra)
            report[name][protocol] = {
                "mIoU": _number(scores.miou),
                "accuracy": _number(scores.accuracy),
                "IoU": dict(zip(classes.names, map(_number, scores.iou.tolist()), strict=True)),
                "class_accuracy": dict(zip(classes.names, map(_number, scores.class_accuracy.tolist()), strict=True)),
            }
        if metric.compute_hungarian:
            named = metric.named_scores()
            report[name]["many_to_one"] = {"mIoU": _number(named.miou), "accuracy": _number(named.accuracy)}
        report[name]["clusters"] = len(metric.confusion)
    return report


@rank_zero_only
def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file under a temporary name, then rename it."""
    write_text_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def summary_table(report: Mapping[str, Any]) -> str:
    """Mean IoU with the number of classes that it averages, and accuracy, of every map; strict ones where they differ.

    Where classes have no label, a further column is the mean IoU of those that have one.
    """
    names = without_cuts(report)
    differ = any(report[name]["published"] != report[name]["strict"] for name in names)
    header, rows = ["map"], [[name] for name in names]
    for protocol in ("published", "strict") if differ else ("published",):
        sign = "strict " if protocol == "strict" else ""
        absent = any(None in report[name][protocol]["class_accuracy"].values() for name in names)
        header += [f"{sign}mIoU", "classes", *(["mIoU of labelled classes"] if absent else []), f"{sign}accuracy"]
        for row in rows:
            scores = report[row[0]][protocol]
            row += [shown_score(scores["mIoU"]), str(sum(iou is not None for iou in scores["IoU"].values()))]
            if absent:
                labelled = [name for name, value in scores["class_accuracy"].items() if value is not None]
                row.append(shown_score(fmean(scores["IoU"][name] for name in labelled) if labelled else None))
            row.append(shown_score(scores["accuracy"]))
    return text_table(header, rows)


def cuts_table(report: Mapping[str, Any]) -> str:
    """Scores of the most refined map of each cut of a tree, by number of clusters; empty without further cuts.

    One to one is Hungarian matching, where the clusters beyond the number of classes are errors. Many to one names each
    cluster by the class that most of its pixels have.
    """
    cuts = [name for name in report if CUT_SIGN in name]
    if not cuts:
        return ""
    steps = cuts[-1].partition("+")[2]
    first = "cluster" + (f"+{steps}" if steps else "")
    shown = [first, *(name for name in cuts if name.partition("+")[2] == steps)]
    header = ["clusters", "one to one: mIoU", "accuracy", "many to one: mIoU", "accuracy"]
    rows = [
        [str(report[name]["clusters"])]
        + [shown_score(report[name][how][score]) for how in ("strict", "many_to_one") for score in ("mIoU", "accuracy")]
        for name in shown
    ]
    return text_table(header, rows)


def class_table(report: Mapping[str, Any], classes: Classes) -> str:
    """IoU of every class for every map (published protocol)."""
    maps = without_cuts(report)
    rows = [[name, *(shown_score(report[shown]["published"]["IoU"][name]) for shown in maps)] for name in classes.names]
    return text_table(["class IoU", *maps], rows)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def shown_score(value: float | None) -> str:
    """Two decimals; – for an undefined score."""
    return "–" if value is None else f"{value:.2f}"
