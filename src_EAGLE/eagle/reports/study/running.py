"""Do the runs of a study in worker processes, each run once; finished ones are kept."""

import json
import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from eagle.errors import EagleError, TrainingError, one_line
from eagle.evaluation.score_tables import write_json
from eagle.processes import follow_parent
from eagle.reports.study.configurations import check_settings_differ, check_unchanged, configuration
from eagle.reports.study.plan import Plan, Run
from eagle.training.resume import LAST

FILE_NAME = "scores.json"
# Setting of the scores of k-means on the keys, which need no training.
KEYS = "keys"

logger = logging.getLogger(__name__)


def do_runs(plan: Plan, root: Path, machine: dict[str, Any], processes: int) -> None:
    """Train and score every run of a plan that has no ``scores.json`` yet.

    Args:
        plan: what to do.
        root: the study's folder.
        machine: keys that differ between machines: pytorch_data_dir, pretrained_weights, cache_dir, accelerator.
        processes: runs at the same time; with more than one, each has one thread.

    Raises:
        ConfigError: two settings are the same, or a folder holds a run with other keys.
        TrainingError: some runs failed; the others are done.
    """
    check_settings_differ(plan)
    for run in plan.runs:
        check_unchanged(plan, run, run.folder(root))
    jobs = [(run, run.folder(root)) for run in (*_key_scores(plan), *plan.runs)]
    jobs = [(run, folder) for run, folder in jobs if not is_done(folder, run.crf)]
    failed = []
    context = multiprocessing.get_context("spawn")
    # One run per process, so that the memory of a run ends with it.
    with ProcessPoolExecutor(processes, context, initializer=follow_parent, max_tasks_per_child=1) as pool:
        waiting = {
            pool.submit(_do_run, _configuration(plan, run, folder, machine), run, folder, processes > 1): folder
            for run, folder in jobs
        }
        for n_done, future in enumerate(as_completed(waiting), 1):
            folder = waiting[future].relative_to(root)
            try:
                future.result()
                logger.info("%d of %d: %s", n_done, len(waiting), folder)
            except Exception as error:  # whatever it is, hours of other runs wait behind it
                failed.append(f"{folder}: {one_line(error)}")
                logger.warning("failed: %s", failed[-1], exc_info=not isinstance(error, EagleError))
    if failed:
        raise TrainingError(f"{len(failed)} of {len(waiting)} runs failed, the first is {failed[0]}")


def is_done(folder: Path, crf: bool) -> bool:
    """Whether a run is scored, with CRF if that is asked for."""
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return bool(content["crf"]) or not crf


def finished(plan: Plan, root: Path) -> Iterator[tuple[Run, dict[str, Any]]]:
    """The scored runs of a plan with the content of their ``scores.json``; raises ConfigError if one has other keys."""
    for run in (*_key_scores(plan), *plan.runs):
        path = run.folder(root) / FILE_NAME
        if path.is_file():
            check_unchanged(plan, run, path.parent)
            yield run, json.loads(path.read_text(encoding="utf-8"))


def _key_scores(plan: Plan) -> list[Run]:
    """k-means of the keys for each data set and seed of the first baseline."""
    return [Run(run.dataset, KEYS, run.seed, run.crf) for run in plan.runs if run.setting == plan.baselines[0]]


def _configuration(plan: Plan, run: Run, folder: Path, machine: dict[str, Any]) -> DictConfig:
    setting = plan.baselines[0] if run.setting == KEYS else run.setting
    place = {"output_root": str(folder.parent), "experiment_name": folder.name, "ckpt_path": LAST}
    return configuration(plan, Run(run.dataset, setting, run.seed, run.crf), **machine, **place)


def _do_run(cfg: DictConfig, run: Run, folder: Path, single_thread: bool) -> None:
    from eagle.reports.study.scores import score_keys, score_run
    from eagle.training.run import train

    # It announces the precision for every model that is scored.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if single_thread:
        torch.set_num_threads(1)
    if run.setting == KEYS:
        content = score_keys(cfg, run.crf)
    else:
        train(cfg)
        # Purity hardly differs between seeds.
        content = score_run(folder, run.crf, purity=run.seed == 0)
    write_json(folder / FILE_NAME, {"crf": run.crf, **content})
