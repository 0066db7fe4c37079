"""Repeat a run with several seeds to measure how much scores vary with the seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from eagle.config.validation import with_overrides
from eagle.console import mean_and_deviation, text_table
from eagle.data.datasets.catalog import open_dataset
from eagle.errors import DataError
from eagle.evaluation.score_tables import PROTOCOLS, write_json
from eagle.reports.checkpoint_evaluation import evaluate_checkpoint
from eagle.segmenter import LABEL_FREE_MONITOR, LABELLED_MONITOR
from eagle.training.resume import LAST, LAST_NAME
from eagle.training.run import BEST_NAME, train

SCORES = ("mIoU", "accuracy")
FILE_NAME = "seeds.json"


def run_seeds(seeds: Sequence[int], training: DictConfig, evaluation: DictConfig) -> str:
    """Train with every seed, score each run's last and best checkpoint, and write all scores to ``seeds.json``.

    Runs are written to ``seed_N`` in the folder ``experiment_name``. Unfinished runs are resumed, so the same command
    can be repeated.

    Args:
        seeds: distinct seeds.
        training: a validated TrainConfig with an experiment_name.
        evaluation: a validated EvalConfig.

    Returns:
        A table of mean ± standard deviation over the seeds, and how the best checkpoint was selected.

    Raises:
        DataError: the validation images have no labels.
        ConfigError, DataError, TrainingError, WeightsError: as in ``train`` and ``evaluate_checkpoint``.
    """
    if not open_dataset(training, "val").has_labels:
        raise DataError("the validation images have no labels to score against; seeds are compared by their scores")
    folder = Path(training.output_root) / training.experiment_name
    reports: dict[str, dict[int, Any]] = {"last": {}, "best": {}}
    for seed in seeds:
        place = {"output_root": str(folder), "experiment_name": f"seed_{seed}", "ckpt_path": LAST}
        run_dir = train(with_overrides(training, seed=seed, **place))
        for name, file_name in (("last", LAST_NAME), ("best", BEST_NAME)):
            content = evaluate_checkpoint(run_dir / file_name, evaluation)
            reports[name][seed] = content["scores"]
    selection = selection_rule(run_dir)
    write_json(folder / FILE_NAME, {"selection of best": selection, **reports})
    return f"{seeds_table(reports)}\n\nbest: {selection}"


def seeds_table(reports: Mapping[str, Mapping[int, Any]]) -> str:
    """Mean ± standard deviation of every map's scores under both protocols.

    Args:
        reports: the result of ``score_tables.results`` by checkpoint name ("last", "best") and seed.
    """
    header = ["checkpoint", "map", *(f"{protocol} {score}" for protocol in PROTOCOLS for score in SCORES)]
    rows = []
    for name, by_seed in reports.items():
        scores = list(by_seed.values())
        for map_name in scores[0]:
            cells = [
                mean_and_deviation([entry[map_name][protocol][score] for entry in scores])
                for protocol in PROTOCOLS
                for score in SCORES
            ]
            rows.append([name, map_name, *cells])
    return text_table(header, rows)


def selection_rule(run_dir: Path) -> str:
    """Describe how a run chose its best checkpoint."""
    header = (run_dir / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    if LABELLED_MONITOR in header:
        return f"highest {LABELLED_MONITOR} of the run's validations, i.e. chosen with the labels used for scoring"
    return f"lowest {LABEL_FREE_MONITOR} of the run's validations, without labels"
