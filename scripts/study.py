"""Train and score settings × data sets × seeds: ``python scripts/study.py pytorch_data_dir=… [plan=FILE]``."""

import logging
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import key
from eagle.files import default_folder


@dataclass
class StudyConfig:
    """Every key of ``study.py``."""

    plan: str = key(str(Path(__file__).with_name("study.yml")), "The study's settings, data sets and seeds", path=True)
    pytorch_data_dir: str = key(default_folder("datasets"), "Folder that holds all datasets", path=True)
    pretrained_weights: str | None = key(
        None, "Backbone weights, as in training; none = those of the recipe's model_type", path=True
    )
    output_dir: str = key(default_folder("outputs/study"), "Folder of all runs, tables and figures", path=True)
    cache_dir: str = key(default_folder("cache"), "Folder for keys that all runs share", path=True)
    accelerator: str = key("auto", "Lightning accelerator: auto, cpu, gpu, mps …")
    processes: int = key(
        1, "Runs at the same time, each with one thread if there are several; 0 = only write tables and figures",
        minimum=0,
    )  # fmt: skip


def study(cfg: DictConfig) -> None:
    """Do the runs of a plan that are not finished, then write study.md, study.json and figures of all that are."""
    from eagle.reports.study.plan import read_plan
    from eagle.reports.study.report import write_study
    from eagle.reports.study.running import do_runs

    logging.getLogger("eagle").setLevel(logging.INFO)
    plan, root = read_plan(Path(cfg.plan)), Path(cfg.output_dir)
    names = ("pytorch_data_dir", "pretrained_weights", "cache_dir", "accelerator")
    machine = {name: cfg[name] for name in names if cfg[name] is not None}
    try:
        if cfg.processes:
            do_runs(plan, root, machine, cfg.processes)
    finally:
        print(f"{write_study(plan, root)}\n\ntables and figures: {root}")


if __name__ == "__main__":
    run_command(StudyConfig, study)
