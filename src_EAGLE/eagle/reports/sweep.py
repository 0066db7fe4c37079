"""The training runs of a ``--multirun`` sweep: each trained and scored once, and a table of all finished ones.

Nothing here imports torch: training and scoring run in processes of their own.
"""

import csv
import dataclasses
import json
import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from eagle.config.parsing import quoted
from eagle.config.schema import BadImageConfig, MachineConfig
from eagle.config.validation import plain
from eagle.console import mean_and_deviation, text_table
from eagle.data.datasets.catalog import open_dataset
from eagle.files import write_csv_atomically, write_text_atomically
from eagle.processes import run_script

FILE_NAME = "sweep_job.json"
CSV_NAME = "sweep.csv"
SEED = "seed"
# Settings are sorted by the first score, or by the loss of runs without labels.
PROBES, SCORES = ("cluster", "linear"), ("mIoU", "accuracy")
LABEL_FREE = "val/loss"

_EVALUATION = Path(__file__).parents[2] / "eval_segmentation.py"

logger = logging.getLogger(__name__)


class TrainingJobs:
    """Trains and scores the jobs of a sweep; each is a run folder in the sweep's."""

    def do(self, cfg: DictConfig, swept: Mapping[str, str], folder: Path, run: Callable[[Sequence[str]], None]) -> None:
        """Train and score a job, unless it is finished with the same configuration.

        A job that was stopped or killed goes on from its last checkpoint. The cluster and linear probes of the last
        checkpoint are scored without CRF, on one device; runs without labels by their last validation loss.

        Args:
            cfg: the job's validated TrainConfig.
            swept: the keys that the sweep varies, with their values.
            folder: the run folder.
            run: runs the training command with more overrides.

        Raises:
            TrainingError: training or scoring failed.
        """
        values = plain(cfg)
        if _record(folder).get("config") == values:
            logger.info("%s: already finished", folder.name)
            return
        open_dataset(cfg, "val")  # names missing files before a process starts for them
        run([_override("output_root", folder.parent), _override("experiment_name", folder.name), "ckpt_path=last"])
        scores = _scores(cfg, folder)
        content = {"swept": dict(swept), "seed": cfg.seed, "scores": scores, "config": values}
        write_text_atomically(folder / FILE_NAME, json.dumps(content, indent=2) + "\n")

    def report(self, sweep: Path) -> str:
        """Write ``sweep.csv``, one row per finished job, and return a table of means over seeds, best setting last.

        Args:
            sweep: the sweep's folder.
        """
        records = [record for path in sorted(sweep.glob(f"*/{FILE_NAME}")) if (record := _record(path.parent))]
        if not records:
            return f"{sweep}: no job has finished yet"
        keys = list(dict.fromkeys(key for record in records for key in record["swept"] if key != SEED))
        names = list(dict.fromkeys(name for record in records for name in record["scores"]))
        rows = [
            [*(record["swept"].get(key, "") for key in keys), str(record["seed"])]
            + [_exact(record["scores"].get(name)) for name in names]
            for record in records
        ]
        write_csv_atomically(sweep / CSV_NAME, [*keys, SEED, *names], rows)
        return f"{_table(records, keys, names)}\n\n{sweep / CSV_NAME}"


def _table(records: Sequence[Mapping[str, Any]], keys: Sequence[str], names: Sequence[str]) -> str:
    settings: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        settings.setdefault(tuple(record["swept"].get(key, "") for key in keys), []).append(record["scores"])
    values = {
        setting: [[entry[name] for entry in scores if entry.get(name) is not None] for name in names]
        for setting, scores in settings.items()
    }
    sign = -1 if names[0] == LABEL_FREE else 1
    ordered = sorted(values, key=lambda setting: sign * statistics.mean(values[setting][0] or [-sign * math.inf]))
    rows = [
        [
            ", ".join(f"{key}={value}" for key, value in zip(keys, setting, strict=True) if value) or "all",
            str(len(settings[setting])),
            *(mean_and_deviation(scores) if scores else "–" for scores in values[setting]),
        ]
        for setting in ordered
    ]
    return text_table(["setting", "runs", *names], rows)


def _scores(cfg: DictConfig, folder: Path) -> dict[str, float | None]:
    if not open_dataset(cfg, "val").has_labels:
        with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
            losses = [row[LABEL_FREE] for row in csv.DictReader(file) if row.get(LABEL_FREE)]
        return {LABEL_FREE: float(losses[-1])}
    names = [f.name for f in (*dataclasses.fields(MachineConfig), *dataclasses.fields(BadImageConfig))]
    machine = {name: cfg[name] for name in names} | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    words = [_override(name, value) for name, value in machine.items()]
    checkpoint = folder / "last.ckpt"
    words += [_override("model_paths", checkpoint), "run_crf=false", "report=false", "n_images=0"]
    run_script(_EVALUATION, words, f"scoring {checkpoint}")
    scores = json.loads((folder / "last_eval.json").read_text(encoding="utf-8"))["scores"]
    published = {f"{probe} {score}": scores[probe]["published"][score] for probe in PROBES for score in SCORES}
    return published | {"cluster strict mIoU": scores["cluster"]["strict"]["mIoU"]}


def _record(folder: Path) -> dict[str, Any]:
    """Content of a finished job's record; empty if the job is not finished."""
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return dict(content)


def _override(key: str, value: Any) -> str:
    return f"{key}={'null' if value is None else quoted(str(value))}"


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)
