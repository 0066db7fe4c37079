"""Tables over many evaluated runs: mean ± standard deviation by setting, and paired differences over seeds.

A setting is what differs between the runs' configurations, apart from the seed and from keys that change no result.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig
from scipy.stats import ttest_1samp

from eagle.config.schema import EvalConfig, TrainConfig, keys_with
from eagle.config.validation import absolute_paths, complete_config, plain
from eagle.console import text_table
from eagle.evaluation.score_tables import write_json
from eagle.files import sha256_of, write_csv_atomically, written_atomically
from eagle.maps.probe_maps import without_cuts

CSV_NAME, JSON_NAME, FIGURE_NAME = "runs.csv", "runs.json", "runs.png"
TREE_FIGURE_NAME = "runs_tree.png"
SEED, CHECKPOINT, KMEANS = "seed", "checkpoint", "k-means on K"
COLUMNS = {
    "mIoU": ("published", "mIoU"),
    "accuracy": ("published", "accuracy"),
    "strict mIoU": ("strict", "mIoU"),
    "strict accuracy": ("strict", "accuracy"),
}


@dataclass(frozen=True)
class Run:
    """An evaluated run.

    Attributes:
        checkpoint: the evaluated file; None for k-means.
        dataset: name of its data.
        setting: the keys that differ between the runs of this command, with their values.
        seed: its seed.
        scores: by map and column, in percent; None is undefined.
    """

    checkpoint: Path | None
    dataset: str
    setting: dict[str, str]
    seed: int
    scores: dict[str, dict[str, float | None]]

    @property
    def name(self) -> str:
        """The setting on one line."""
        return ", ".join(f"{key}={value}" if value else key for key, value in self.setting.items()) or "all"

    def miou(self, map_name: str) -> float:
        """The mIoU of a map; NaN if it is undefined, or the run has no such map."""
        value = self.scores.get(map_name, {}).get("mIoU")
        return np.nan if value is None else value


def runs_report(contents: Mapping[str, Mapping[str, Any]], folder: Path, origin: Mapping[str, Any]) -> str:
    """Write ``runs.csv``, ``runs.json``, ``runs.png`` and, with trees, ``runs_tree.png``; return the tables.

    Args:
        contents: by checkpoint, what ``evaluate_checkpoint`` returns, with the training configuration as ``config``
            and, with the key ``kmeans``, the scores of k-means on the same keys.
        folder: for the files.
        origin: what made them, for the JSON.
    """
    runs = collect(contents)
    keys = list(dict.fromkeys(key for run in runs for key in run.setting))
    rows = [
        [run.dataset, *(run.setting.get(key, "") for key in keys), str(run.seed), name]
        + ["" if value is None else repr(value) for value in scores.values()]
        for run in runs
        for name, scores in run.scores.items()
    ]
    write_csv_atomically(folder / CSV_NAME, ["dataset", *keys, SEED, "map", *COLUMNS], rows)
    found = [{"dataset": run.dataset, "setting": run.setting, "seed": run.seed, "scores": run.scores} for run in runs]
    write_json(folder / JSON_NAME, {**origin, "runs": found})
    files = [folder / CSV_NAME, folder / JSON_NAME]
    for name, figure in ((FIGURE_NAME, dots_figure(runs)), (TREE_FIGURE_NAME, tree_figure(runs))):
        if figure is not None:
            files.append(folder / name)
            with written_atomically(files[-1]) as temporary:
                figure.savefig(temporary, format="png", dpi=130)
    parts = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        part = [run for run in runs if run.dataset == dataset]
        parts += [scores_table(part), differences_table(part)]
    return "\n\n".join([*(part for part in parts if part), "\n".join(map(str, files))])


def collect(contents: Mapping[str, Mapping[str, Any]]) -> list[Run]:
    """The runs with their settings, in the order given; k-means of a data set and seed is a run of its own."""
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
    runs, baselines = [], {}
    for path, content in contents.items():
        setting = {name: values[path][name] for name in differing}
        dataset, seed = datasets[path], configs[path].seed
        runs.append(Run(Path(path), dataset, setting, seed, _scores(content["scores"])))
        if "kmeans" in content:
            baselines[dataset, seed] = Run(None, dataset, {KMEANS: ""}, seed, _scores(content["kmeans"]))
    return [*baselines.values(), *runs]


def scores_table(runs: Sequence[Run]) -> str:
    """Mean ± standard deviation over the runs of one data set: a row for each setting, a column for each map."""
    maps, rows = _maps(runs), []
    for number, (setting, part) in enumerate(_by_setting(runs).items(), 1):
        rows.append([f"{number}. {setting}", str(len(part)), *(_scores_cell(part, name) for name in maps)])
    return text_table([f"{runs[0].dataset}: mIoU / accuracy", "runs", *maps], rows)


def differences_table(runs: Sequence[Run]) -> str:
    """Paired differences of the cluster maps' mIoU over common seeds, with 95 % intervals (paired t test).

    Each map is compared with the same map of the settings above it, which have the numbers of ``scores_table``, and
    with the unrefined map. ``*`` marks intervals without zero. Empty without pairs.
    """
    parts = list(_by_setting(runs).values())
    rows = []
    for number, part in enumerate(parts):
        for name in (name for name in _maps(part) if name.startswith("cluster")):
            ours, unrefined = _by_seed(part, name), name.partition("+")[0]
            cells = [_difference(ours, _by_seed(other, name)) for other in parts[:number]]
            cells += [""] * (len(parts) - 1 - number)
            cells.append(_difference(ours, _by_seed(part, unrefined)) if name != unrefined else "")
            if any(cells):
                rows.append([f"{number + 1}. {name}", *cells])
    header = [f"{runs[0].dataset}: mIoU of", *(f"− {number}." for number in range(1, len(parts))), "− unrefined"]
    return text_table(header, rows) if rows else ""


def dots_figure(runs: Sequence[Run]) -> Figure:
    """Draw the mIoU of the cluster probe: a panel per data set, a row per setting, a dot per run, a bar at the mean."""
    datasets, settings = list(dict.fromkeys(run.dataset for run in runs)), list(_by_setting(runs))
    maps = [name for name in _maps(runs) if name.startswith("cluster")]
    figure = Figure(figsize=(2.5 + 2.6 * len(datasets), 1.3 + 0.28 * len(settings) * len(maps)), layout="constrained")
    panels = figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0]
    for axes, dataset in zip(panels, datasets, strict=True):
        for number, name in enumerate(maps):
            shift, color = 0.7 * ((number + 0.5) / len(maps) - 0.5), f"C{number}"
            dots = [(run.miou(name), settings.index(run.name) + shift) for run in runs if run.dataset == dataset]
            axes.plot(*zip(*dots, strict=True), "o", color=color, alpha=0.6, markersize=4, label=name)
            for row in {row for _, row in dots}:
                known = [miou for miou, at in dots if at == row and not np.isnan(miou)]
                if known:
                    axes.plot([np.mean(known)], [row], "|", color=color, markersize=12, markeredgewidth=2)
        axes.set_title(dataset.replace("$", r"\$"), fontsize=10)
        axes.set_xlabel("mIoU (%)")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    shown = [name.replace(", ", "\n").replace("$", r"\$") for name in settings]  # a line for each key
    panels[0].set_yticks(range(len(settings)), shown, fontsize=8)
    panels[0].invert_yaxis()
    handles, _ = panels[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=len(maps), fontsize=8, frameon=False)
    return figure


def tree_figure(runs: Sequence[Run]) -> Figure | None:
    """Draw the mIoU of trees of clusters against that of the trained probes, most refined: a dot per run, a colour per
    data set, and the diagonal; None without pairs of NAME and NAME_tree.
    """
    probes = {run.checkpoint.with_stem(f"{run.checkpoint.stem}_tree"): run for run in runs if run.checkpoint}
    last = [name for name in _maps(runs) if name.startswith("cluster")][-1]
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for dataset in dict.fromkeys(run.dataset for run in runs):
        pairs = [(probes[run.checkpoint], run) for run in runs if run.checkpoint in probes and run.dataset == dataset]
        if pairs:
            dots = [(probe.miou(last), tree.miou(last)) for probe, tree in pairs]
            axes.plot(*zip(*dots, strict=True), "o", alpha=0.7, label=dataset.replace("$", r"\$"))
    if not axes.lines:
        return None
    ends = np.concatenate([dots.get_xydata() for dots in axes.lines])
    span = (np.nanmin(ends) - 2, np.nanmax(ends) + 2)
    axes.plot(span, span, "-", color="0.6", linewidth=1, zorder=0)
    axes.set(xlabel="trained probe: mIoU (%)", ylabel="tree: mIoU (%)", xlim=span, ylim=span, aspect="equal")
    axes.legend(frameon=False)
    return figure


def _by_setting(runs: Sequence[Run]) -> dict[str, list[Run]]:
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(run.name, []).append(run)
    return parts


def _maps(runs: Sequence[Run]) -> list[str]:
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
        found = [run.scores[name][column] for run in runs if name in run.scores]
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
    asked = {"n_images": "grid.png", "report": "report.html", "run_prediction": "predictions"}
    written = all(place.with_name(f"{path.stem}_{name}").exists() for key, name in asked.items() if cfg[key])
    if not written or "config" not in content or not evaluation_record(path, cfg).items() <= content.items():
        return None
    return content
