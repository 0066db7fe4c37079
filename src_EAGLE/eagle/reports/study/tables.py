"""Tables of a study: mean ± standard deviation over seeds, and paired differences between settings."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eagle.console import mean_and_deviation, text_table
from eagle.reports.study.plan import Run
from eagle.reports.study.running import KEYS
from eagle.reports.study.statistics import Difference, paired_difference

# Cluster centres: trained, or fitted to the final codes.
PROBES = ("cluster", "kmeans")
# Shown maps in reading order.
MAPS = tuple(f"{probe}{part}" for probe in PROBES for part in ("", "+spectral", "+crf", "+spectral+crf"))
BEST = "best by labels"
# mIoU by setting, map and seed; and by data set.
Settings = dict[str, dict[str, dict[int, float]]]
Table = dict[str, Settings]
# Question, row, and the mIoU by seed of both sides.
Pair = tuple[str, str, dict[int, float], dict[int, float]]


def miou_table(contents: Mapping[Run, Mapping[str, Any]]) -> Table:
    """Sort the mIoU of every run; the probe of the best checkpoint appears as a map of its own."""
    table: Table = {}
    for run, content in contents.items():
        maps = table.setdefault(run.dataset, {}).setdefault(run.setting, {})
        for name, scores in content["scores"].items():
            maps.setdefault(name, {})[run.seed] = scores["mIoU"]
        if "best" in content:
            maps.setdefault(BEST, {})[run.seed] = content["best"]
    return table


def scores_text(table: Table) -> str:
    """One table per data set: settings × maps, mean ± standard deviation of the mIoU."""
    parts = []
    for dataset, settings in table.items():
        names = [name for name in (*MAPS, "linear", "linear+spectral", BEST) if _has(settings, name)]
        header = [dataset, "seeds", *names]
        rows = []
        for setting, maps in settings.items():
            cells = [mean_and_deviation(list(maps[name].values())) if name in maps else "" for name in names]
            rows.append([setting, str(max(len(by_seed) for by_seed in maps.values())), *cells])
        parts.append(text_table(header, rows))
    return "\n\n".join(parts)


def comparisons(table: Table, baselines: Sequence[str]) -> dict[str, dict[str, dict[str, Difference]]]:
    """Paired differences by question, data set and row.

    Questions between settings: each against each baseline, by every kind of centres, and by each refined kind against
    the baseline's trained probe without refinement. Within each setting: fitted centres against trained ones, all
    against k-means of the keys, and refinement against none. Runs without a map are left out of its questions.
    """
    found: dict[str, dict[str, dict[str, Difference]]] = {}
    for dataset, settings in table.items():
        for question, row, ours, theirs in (*_between_settings(settings, baselines), *_within_settings(settings)):
            difference = paired_difference(ours, theirs)
            if difference is not None:
                found.setdefault(question, {}).setdefault(dataset, {})[row] = difference
    return found


def _between_settings(settings: Settings, baselines: Sequence[str]) -> Iterator[Pair]:
    for baseline, probe in itertools.product(baselines, PROBES):
        base = settings.get(baseline, {})
        for setting, maps in settings.items():
            if setting == KEYS:
                continue
            if setting != baseline:
                yield f"{probe}: setting − {baseline}", setting, maps.get(probe, {}), base.get(probe, {})
            refined = maps.get(f"{probe}+spectral", {})
            yield f"{probe} + spectral of setting − cluster of {baseline}", setting, refined, base.get("cluster", {})


def _within_settings(settings: Settings) -> Iterator[Pair]:
    keys = settings.get(KEYS, {}).get("kmeans", {})
    for setting, maps in settings.items():
        found = {name: maps.get(name, {}) for name in MAPS}
        for probe in PROBES:
            plain, spectral, crf, both = (
                found[f"{probe}{part}"] for part in ("", "+spectral", "+crf", "+spectral+crf")
            )
            if setting != KEYS:
                yield f"{probe} − k-means of the keys", setting, plain, keys
                yield f"{probe} + spectral − k-means of the keys", setting, spectral, keys
                if probe != "cluster":
                    yield f"{probe} − cluster", setting, plain, found["cluster"]
                    yield f"{probe} − cluster, both + spectral", setting, spectral, found["cluster+spectral"]
            yield f"{probe}: spectral − none", setting, spectral, plain
            yield f"{probe}: crf − none", setting, crf, plain
            yield f"{probe}: spectral + crf − spectral", setting, both, spectral
            yield f"{probe}: spectral + crf − crf", setting, both, crf
        yield "best by labels − last", setting, maps.get(BEST, {}), found["cluster"]


def comparisons_text(found: Mapping[str, Mapping[str, Mapping[str, Difference]]]) -> str:
    """One table per question: mean difference ± half width of its 95 % interval; * marks intervals without zero."""
    parts = []
    for question, by_dataset in found.items():
        names = list(dict.fromkeys(row for rows in by_dataset.values() for row in rows))
        body = [[name, *(_shown(rows.get(name)) for rows in by_dataset.values())] for name in names]
        parts.append(text_table([question, *by_dataset], body))
    return "\n\n".join(parts)


def purity_text(contents: Mapping[Run, Mapping[str, Any]]) -> str:
    """Mean purity of the cue by data set and setting: within images and over a batch, before and after training."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run, content in contents.items():
        if "purity" in content:
            rows.setdefault((run.dataset, run.setting), []).append(content["purity"])
    header = ["data set", "setting", "one label", "within: start", "end", "one label", "over: start", "end"]
    body = []
    for place, purities in rows.items():
        cells = []
        for scope in ("within", "over"):
            cells.append(_mean([purity["end"][f"{scope}_one_label"] for purity in purities]))
            cells += [_mean([purity[when][scope] for purity in purities]) for when in ("start", "end")]
        body.append([*place, *cells])
    return text_table(header, body)


def _has(settings: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    return any(name in maps for maps in settings.values())


def _shown(difference: Difference | None) -> str:
    if difference is None:
        return ""
    star = "*" if difference.is_clear else ""
    width = "" if difference.n < 2 else f" ± {difference.half_width:.1f}"
    return f"{difference.mean:+.1f}{width}{star}"


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1f}"
