"""Write a study's tables and figures from its finished runs."""

from pathlib import Path

from eagle.evaluation.score_tables import write_json
from eagle.figures.bars import bars_figure
from eagle.figures.rendering import write_figure
from eagle.files import write_text_atomically
from eagle.reports.study.plan import Plan
from eagle.reports.study.running import finished
from eagle.reports.study.tables import comparisons, comparisons_text, miou_table, purity_text, scores_text

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
    return text
