"""Figures of a study: bars of mean scores with error bars, and scores over steps with bands."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from eagle.figures.curves import RUN_COLORS
from eagle.figures.rendering import shown_name

# Scores of one bar or band: one value per seed.
Values = Sequence[float]


def bars_figure(scores: Mapping[str, Mapping[str, Values]], title: str) -> Figure:
    """Draw one group of bars per data set: mean with standard deviation, and a point per seed.

    Args:
        scores: values by data set and setting; a setting that is missing from a data set leaves a gap.
        title: what the scores are.
    """
    settings = list(dict.fromkeys(name for by_setting in scores.values() for name in by_setting))
    figure = Figure(figsize=(2.2 + 0.33 * len(settings) * len(scores), 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.84 / len(settings)
    for number, setting in enumerate(settings):
        for place, by_setting in enumerate(scores.values()):
            values = np.asarray(by_setting.get(setting, ()), dtype=float)
            if not len(values):
                continue
            x = place + (number - (len(settings) - 1) / 2) * width
            deviation = values.std(ddof=1) if len(values) > 1 else 0.0
            label = setting if setting not in axes.get_legend_handles_labels()[1] else None
            color = RUN_COLORS[number % len(RUN_COLORS)]
            axes.bar(x, values.mean(), 0.9 * width, color=color, alpha=0.75, label=label, yerr=deviation, capsize=2)
            axes.plot(np.full(len(values), x), values, ".", color="black", markersize=3)
    axes.set_xticks(range(len(scores)), [shown_name(name) for name in scores])
    axes.set_ylabel("mIoU (%)")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(5, len(settings)), fontsize=8, frameon=False)
    return figure


def bands_figure(curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], title: str) -> Figure:
    """Draw one panel per data set: each setting's mean over steps in a band of ± one standard deviation.

    Args:
        curves: by data set and setting, the n steps and the seeds×n scores at them.
        title: what the scores are.
    """
    figure = Figure(figsize=(3.4 * len(curves), 3.2), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    settings = list(dict.fromkeys(name for by_setting in curves.values() for name in by_setting))
    lines = {}
    for axes, (dataset, by_setting) in zip(panels, curves.items(), strict=True):
        for setting, (steps, values) in by_setting.items():
            color = RUN_COLORS[settings.index(setting) % len(RUN_COLORS)]
            mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1 if len(values) > 1 else 0)
            (lines[setting],) = axes.plot(steps, mean, color=color, linewidth=1.8)
            axes.fill_between(steps, mean - deviation, mean + deviation, color=color, alpha=0.18, linewidth=0)
        axes.set_title(shown_name(dataset), fontsize=10)
        axes.set_xlabel("steps")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(title)
    figure.legend(
        [lines[name] for name in settings], settings, loc="outside lower center", ncols=min(5, len(settings)),
        fontsize=8, frameon=False,
    )  # fmt: skip
    return figure
