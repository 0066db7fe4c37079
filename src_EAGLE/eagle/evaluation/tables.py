"""Tables and JSON of one evaluation, and tables over many runs.

Over runs there are mean ± standard deviation by setting, and paired differences over seeds. A setting is what differs
between the runs' configurations, apart from the seed and from keys that change no result.
"""

import json
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only
from scipy.stats import ttest_1samp

from eagle.config.schema import EvalConfig, TrainConfig, keys_with
from eagle.config.validation import absolute_paths, complete_config, plain
from eagle.console import text_table
from eagle.data.datasets.base import Classes
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.files import sha256_of, write_text_atomically
from eagle.maps.probe_maps import CUT_SIGN, without_cuts

logger = logging.getLogger(__name__)

# Protocol → whether pixels of unmatched extra clusters count as errors.
PROTOCOLS = {"published": False, "strict": True}
SEED, CHECKPOINT, KMEANS = "seed", "checkpoint", "k-means on K"
KMEANS_KEYS = ("pretrained_weights", "res", "val_res", "extra_clusters")
# Keys of an evaluation and what they write, after the checkpoint's name.
FILES = {"n_images": "grid.png", "report": "report.html", "run_prediction": "predictions"}
COLUMNS = {
    "mIoU": ("published", "mIoU"),
    "accuracy": ("published", "accuracy"),
    "strict mIoU": ("strict", "mIoU"),
    "strict accuracy": ("strict", "accuracy"),
}


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


@dataclass(frozen=True)
class Run:
    """An evaluated run.

    Attributes:
        checkpoint: the evaluated file; None for k-means.
        dataset: name of its data.
        setting: the keys that differ between the runs of this command, with their values.
        seed: its seed.
        scores: by map and column, in percent; None is undefined.
        protocol: before the names of the columns that tables and figures show: "strict " or nothing.
    """

    checkpoint: Path | None
    dataset: str
    setting: dict[str, str]
    seed: int
    scores: dict[str, dict[str, float | None]]
    protocol: str = ""

    @property
    def name(self) -> str:
        """The setting on one line."""
        return ", ".join(f"{key}={value}" if value else key for key, value in self.setting.items()) or "all"

    def miou(self, map_name: str) -> float:
        """The mIoU of a map; NaN if it is undefined, or the run has no such map."""
        value = self.scores.get(map_name, {}).get(f"{self.protocol}mIoU")
        return np.nan if value is None else value


def collect(contents: Mapping[str, Mapping[str, Any]]) -> list[Run]:
    """The runs with their settings, in the order given; k-means of the same data, keys and seed is a run of its own."""
    names = keys_with(TrainConfig, "method", "model", "backbone", "data", "adjustable", "numerics")
    configs = {path: complete_config(content["config"]) for path, content in contents.items()}
    values: dict[str, dict[str, str]] = {}
    for path, config in configs.items():
        files = {name: Path(file).name for name, file in absolute_paths(TrainConfig, config, Path.cwd()).items()}
        found = plain(config) | files | {CHECKPOINT: Path(path).stem}
        values[path] = {name: str(found[name]) for name in (*names, CHECKPOINT)}
    # Only keys that differ between runs of one data set: its own name is no setting.
    datasets = {path: content["dataset"] for path, content in contents.items()}
    differing = [
        name
        for name in (*names, CHECKPOINT)
        if len({(datasets[path], values[path][name]) for path in contents}) > len({*datasets.values()})
    ]
    # Keys that k-means depends on as well.
    of_kmeans = {*keys_with(TrainConfig, "backbone", "data"), *KMEANS_KEYS}.intersection(differing)
    protocol = "strict " if _mixes_protocols(contents) else ""
    runs, baselines = [], {}
    taken: dict[Any, str] = {}
    for path, content in contents.items():
        setting = {name: values[path][name] for name in differing}
        dataset, seed = datasets[path], configs[path].seed
        same = taken.setdefault((dataset, *setting.values(), seed), path)
        if same != path:
            logger.warning("%s: has the setting and the seed of %s; both count as runs", path, same)
        runs.append(Run(Path(path), dataset, setting, seed, _scores(content["scores"]), protocol))
        if "kmeans" in content:
            own = {name: value for name, value in setting.items() if name in of_kmeans}
            baseline = Run(None, dataset, {KMEANS: "", **own}, seed, _scores(content["kmeans"]), protocol)
            baselines[dataset, seed, *own.values()] = baseline
    return [*baselines.values(), *runs]


def _mixes_protocols(contents: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether some maps ignore pixels of clusters beyond the classes, as published, and others, of trees, never do."""
    reports = [content["scores"] for content in contents.values()]
    entries = [report[name] for report in reports for name in without_cuts(report)]
    with_extra = [e for e in entries if "clusters" in e and e["clusters"] > len(e["published"]["IoU"])]
    return len({entry["published"] == entry["strict"] for entry in with_extra}) > 1


def scores_table(runs: Sequence[Run]) -> str:
    """Mean ± standard deviation over the runs of one data set: a row for each setting, a column for each map."""
    maps, rows = table_maps(runs), []
    for number, (setting, part) in enumerate(by_setting(runs).items(), 1):
        rows.append([f"{number}. {setting}", str(len(part)), *(_scores_cell(part, name) for name in maps)])
    return text_table([f"{runs[0].dataset}: {runs[0].protocol}mIoU / accuracy", "runs", *maps], rows)


def differences_table(runs: Sequence[Run]) -> str:
    """Paired differences of the cluster maps' mIoU over common seeds, with 95 % intervals (paired t test).

    Each map is compared with the same map of the settings above it, which have the numbers of ``scores_table``, and
    with the unrefined map. ``*`` marks intervals without zero. Empty without pairs.
    """
    parts = list(by_setting(runs).values())
    rows = []
    for number, part in enumerate(parts):
        for name in (name for name in table_maps(part) if name.startswith("cluster")):
            ours, unrefined = _by_seed(part, name), name.partition("+")[0]
            cells = [_difference(ours, _by_seed(other, name)) for other in parts[:number]]
            cells += [""] * (len(parts) - 1 - number)
            cells.append(_difference(ours, _by_seed(part, unrefined)) if name != unrefined else "")
            if any(cells):
                rows.append([f"{number + 1}. {name}", *cells])
    others = [f"− {number}." for number in range(1, len(parts))]
    header = [f"{runs[0].dataset}: {runs[0].protocol}mIoU of", *others, "− unrefined"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return text_table(header, rows) if rows else ""


def by_setting(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each setting, by its name."""
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(run.name, []).append(run)
    return parts


def table_maps(runs: Sequence[Run]) -> list[str]:
    """Maps of the tables; those of further cuts of a tree are in the CSV alone."""
    return list(dict.fromkeys(name for run in runs for name in without_cuts(run.scores)))


def _scores(scores: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    return {
        name: {column: entry[protocol][score] for column, (protocol, score) in COLUMNS.items()}
        for name, entry in scores.items()
    }


def _by_seed(runs: Sequence[Run], name: str) -> dict[int, float]:
    """Give the mIoU of a map by seed, NaN if undefined; the mean of runs with the same seed."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if name in run.scores:
            found.setdefault(run.seed, []).append(run.miou(name))
    return {seed: float(np.mean(values)) for seed, values in found.items()}


def _scores_cell(runs: Sequence[Run], name: str) -> str:
    """MIoU / accuracy of a map: ``mean ± sample standard deviation`` over runs; – if they do not have it."""
    cells = []
    for column in ("mIoU", "accuracy"):
        found = [run.scores[name][f"{run.protocol}{column}"] for run in runs if name in run.scores]
        known = [value for value in found if value is not None]
        deviation = f" ± {np.std(known, ddof=1):.2f}" if len(known) > 1 else ""
        cells.append((f"{np.mean(known):.2f}{deviation}" if known else "–") + _of_all(known, found))
    return " / ".join(cells) if found else "–"


def _difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """``mean ± half width`` over common seeds; without a width for a single pair, empty without any."""
    found = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    known = [difference for difference in found if not np.isnan(difference)]
    if not known:
        return f"–{_of_all(known, found)}" if found else ""
    if len(known) == 1:
        return f"{known[0]:+.1f}{_of_all(known, found)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal differences, whose interval is a point
        interval = ttest_1samp(known, 0).confidence_interval(0.95)
    star = "*" if interval.low > 0 or interval.high < 0 else ""
    half = (interval.high - interval.low) / 2
    return f"{np.mean(known):+.1f} ± {half:.1f}{star}{_of_all(known, found)}"


def _of_all(known: Sequence[Any], found: Sequence[Any]) -> str:
    """How many values are defined, if some are not."""
    return f" ({len(known)} of {len(found)})" if len(known) < len(found) else ""


def evaluation_record(path: Path, cfg: DictConfig) -> dict[str, Any]:
    """What tells whether an evaluation holds: the checkpoint's SHA-256 and the keys that change its scores."""
    names = keys_with(EvalConfig, "method", "data", "numerics")
    return {"sha256": sha256_of(path), "evaluation": {name: plain(cfg)[name] for name in names}}


def asked_files(cfg: DictConfig) -> list[str]:
    """The keys that ask for files beside the JSON."""
    return [key for key in FILES if cfg[key]]


def stored_evaluation(path: Path, cfg: DictConfig, place: Path | None = None) -> dict[str, Any] | None:
    """The content of a checkpoint's evaluation if that has the same weights and settings, and all files asked for.

    Args:
        path: the checkpoint.
        cfg: a validated EvalConfig.
        place: where the checkpoint would lie beside its evaluation; None for ``path``.
    """
    place = place or path
    try:
        content = dict(json.loads(place.with_name(f"{path.stem}_eval.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    asked = asked_files(cfg)
    # A file that this evaluation has not written is of an earlier one.
    written = {*asked} <= {*content.get("files", asked)}
    written = written and all(place.with_name(f"{path.stem}_{FILES[key]}").exists() for key in asked)
    if not written or "config" not in content or not evaluation_record(path, cfg).items() <= content.items():
        return None
    return content
