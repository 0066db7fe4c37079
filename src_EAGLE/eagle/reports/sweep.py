"""The training runs of a ``--multirun`` sweep: each trained and scored once, and a table of all finished ones.

Nothing here imports torch: training and scoring run in processes of their own.
"""

import csv
import dataclasses
import json
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
LAST, BEST = "last", "best"
# Settings are sorted by the first score, or by the loss of runs without labels.
PROTOCOLS, SCORES = {"published": "", "strict": "strict "}, ("mIoU", "accuracy")
LABEL_FREE = "val/loss"

_SCRIPTS = Path(__file__).parents[2]
_TRAINING, _EVALUATION = _SCRIPTS / "train_segmentation_eigen.py", _SCRIPTS / "eval_segmentation.py"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingJobs:
    """Trains and scores the jobs of a sweep; each is a run folder in the sweep's.

    Attributes:
        checkpoints: which checkpoints of a run to score, "last" and "best".
        run_crf: whether to score maps after the dense CRF, too.
    """

    checkpoints: tuple[str, ...] = (LAST,)
    run_crf: bool = False

    def do(self, cfg: DictConfig, swept: Mapping[str, str], folder: Path, words: Sequence[str]) -> None:
        """Train and score a job, unless it is finished with the same configuration and scores.

        A job that was stopped or killed goes on from its last checkpoint. Both probes are scored on one device; runs
        without labels by their last validation loss.

        Args:
            cfg: the job's validated TrainConfig.
            swept: the keys that the sweep varies, with their values.
            folder: the run folder.
            words: arguments of the training command that give ``cfg``.

        Raises:
            TrainingError: training or scoring failed.
        """
        job = {"config": plain(cfg), "scored": {"checkpoints": list(self.checkpoints), "run_crf": self.run_crf}}
        if _record(folder).items() >= job.items():
            logger.info("%s: already finished", folder.name)
            return
        labelled = open_dataset(cfg, "val").has_labels  # names missing files before a process starts for them
        place = [_override("output_root", folder.parent), _override("experiment_name", folder.name), "ckpt_path=last"]
        run_script(_TRAINING, [*words, *place], f"job {folder.name}")
        scores = self._scores(cfg, folder) if labelled else [_loss(folder)]
        content = {"swept": dict(swept), "seed": cfg.seed, "scores": scores, **job}
        write_text_atomically(folder / FILE_NAME, json.dumps(content, indent=2) + "\n")

    def report(self, sweep: Path) -> str:
        """Write ``sweep.csv`` and return a table of means over seeds, best setting last.

        Both have the scores of every finished job's checkpoints and maps.

        Args:
            sweep: the sweep's folder.
        """
        records = [record for path in sorted(sweep.glob(f"*/{FILE_NAME}")) if (record := _record(path.parent))]
        if not records:
            return f"{sweep}: no job has finished yet"
        keys = list(dict.fromkeys(key for record in records for key in record["swept"] if key != SEED))
        entries = [(record, entry) for record in records for entry in record["scores"]]
        names = list(dict.fromkeys(name for _, entry in entries for name in entry["scores"]))
        rows = [
            [*(record["swept"].get(key, "") for key in keys), str(record["seed"]), entry["checkpoint"], entry["map"]]
            + [_exact(entry["scores"].get(name)) for name in names]
            for record, entry in entries
        ]
        write_csv_atomically(sweep / CSV_NAME, [*keys, SEED, "checkpoint", "map", *names], rows)
        lines = [_table(records, names)]
        if any(entry["checkpoint"] == BEST for _, entry in entries):
            lines += ["best: highest cluster mIoU of a run's validations, i.e. chosen with the labels used for scoring"]
        return "\n\n".join([*lines, str(sweep / CSV_NAME)])

    def _scores(self, cfg: DictConfig, folder: Path) -> list[dict[str, Any]]:
        present = [name for name in self.checkpoints if (folder / f"{name}.ckpt").is_file()]
        for name in set(self.checkpoints) - set(present):
            logger.warning("%s: the run wrote no %s.ckpt, so it is not scored", folder, name)
        names = [f.name for f in (*dataclasses.fields(MachineConfig), *dataclasses.fields(BadImageConfig))]
        machine = {name: cfg[name] for name in names} | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
        words = [_override(name, value) for name, value in machine.items()]
        paths = ",".join(quoted(str(folder / f"{name}.ckpt")) for name in present)
        words += [f"model_paths=[{paths}]", f"run_crf={self.run_crf}", "report=false", "n_images=0"]
        run_script(_EVALUATION, words, f"scoring {folder.name}")
        return [entry for name in present for entry in _evaluation(folder, name)]


def _table(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    found: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        setting = ", ".join(f"{key}={value}" for key, value in record["swept"].items() if key != SEED) or "all"
        for entry in record["scores"]:
            scores = found.setdefault((entry["checkpoint"], entry["map"]), {}).setdefault(setting, [])
            scores.append(entry["scores"])
    sign = -1 if names[0] == LABEL_FREE else 1
    rows = []
    for kind, settings in found.items():
        known = {
            setting: [[entry[name] for entry in scores if entry.get(name) is not None] for name in names]
            for setting, scores in settings.items()
        }
        for setting in sorted(known, key=lambda s: sign * statistics.mean(known[s][0] or [-sign * math.inf])):
            cells = [mean_and_deviation(values) if values else "–" for values in known[setting]]
            rows.append([setting, *kind, str(len(settings[setting])), *cells])
    return text_table(["setting", "checkpoint", "map", "runs", *names], rows)


def _loss(folder: Path) -> dict[str, Any]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        losses = [row[LABEL_FREE] for row in csv.DictReader(file) if row.get(LABEL_FREE)]
    return {"checkpoint": LAST, "map": "", "scores": {LABEL_FREE: float(losses[-1])}}


def _evaluation(folder: Path, checkpoint: str) -> list[dict[str, Any]]:
    maps = json.loads((folder / f"{checkpoint}_eval.json").read_text(encoding="utf-8"))["scores"]
    return [
        {
            "checkpoint": checkpoint,
            "map": name,
            "scores": {prefix + s: scores[protocol][s] for protocol, prefix in PROTOCOLS.items() for s in SCORES},
        }
        for name, scores in maps.items()
    ]


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
