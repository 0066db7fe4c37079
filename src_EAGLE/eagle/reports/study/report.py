"""Write a study's tables and figures from its finished runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eagle.evaluation.score_tables import write_json
from eagle.figures.rendering import write_figure
from eagle.figures.run_metrics import read_run
from eagle.figures.study import bands_figure, bars_figure
from eagle.files import write_text_atomically
from eagle.reports.study.plan import Plan, Run
from eagle.reports.study.running import KEYS, finished
from eagle.reports.study.tables import comparisons, comparisons_text, miou_table, purity_text, scores_text
from eagle.segmenter import LABELLED_MONITOR

MAP_TITLES = {"cluster": "trained cluster probe", "kmeans": "k-means of the codes"}


def write_study(plan: Plan, root: Path) -> str:
    """Write ``study.md``, ``study.json`` and the figures into the study's folder; return the tables."""
    contents = dict(finished(plan, root))
    if not contents:
        return "no finished runs"
    table = miou_table(contents)
    text = "\n\n".join(
        [scores_text(table), comparisons_text(comparisons(table, plan.baselines)), purity_text(contents)]
    )
    write_text_atomically(root / "study.md", text + "\n")
    runs = [
        {"dataset": run.dataset, "setting": run.setting, "seed": run.seed, **dict(c)} for run, c in contents.items()
    ]
    write_json(root / "study.json", {"runs": runs})
    for name, title in MAP_TITLES.items():
        scores = {
            dataset: {setting: list(maps[name].values()) for setting, maps in settings.items() if name in maps}
            for dataset, settings in table.items()
        }
        write_figure(root / f"{name}.png", bars_figure(scores, f"{title}: mean and standard deviation over seeds"))
    write_figure(root / "steps.png", bands_figure(_curves(contents, root), "trained cluster probe: mIoU (%)"))
    return text


def _curves(
    contents: Mapping[Run, Mapping[str, Any]], root: Path
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    found: dict[str, dict[str, list[Any]]] = {}
    for run in contents:
        if run.setting != KEYS:
            curve = read_run(run.folder(root), run.setting).curves.get(LABELLED_MONITOR)
            if curve is not None:
                found.setdefault(run.dataset, {}).setdefault(run.setting, []).append(curve)
    return {
        dataset: {
            setting: (curves[0].steps, np.stack([curve.values for curve in curves]))
            for setting, curves in by_setting.items()
        }
        for dataset, by_setting in found.items()
    }
