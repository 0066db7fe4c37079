import csv
import json
import subprocess
import sys
import time

import psutil
import pytest

from conftest import ROOT, run_values
from eagle.config.schema import TrainConfig
from eagle.config.validation import plain, validated
from eagle.reports.sweep import TrainingJobs
from miniatures import write_halves

SCORES = {
    ("0.005", 0): {"cluster mIoU": 30.0, "linear mIoU": 50.0},
    ("0.005", 1): {"cluster mIoU": 34.0, "linear mIoU": 52.0},
    ("0.02", 0): {"cluster mIoU": 20.0, "linear mIoU": 60.0},
    ("0.02", 1): {"cluster mIoU": None, "linear mIoU": 61.0},
}


def write_records(sweep, scores, config=None):
    for (lr, seed), values in scores.items():
        folder = sweep / f"lr_cluster={lr},seed={seed}"
        folder.mkdir(parents=True)
        record = {"swept": {"lr_cluster": lr, "seed": str(seed)}, "seed": seed, "scores": values, "config": config}
        (folder / "sweep_job.json").write_text(json.dumps(record))


def test_report__means_over_seeds_with_the_best_setting_last(tmp_path):
    write_records(tmp_path, SCORES)
    lines = TrainingJobs().report(tmp_path).splitlines()
    assert [line.split("  ")[0] for line in lines[2:4]] == ["lr_cluster=0.02", "lr_cluster=0.005"]
    assert "32.00 ± 2.83" in lines[3]
    assert "51.00 ± 1.41" in lines[3]
    assert "20.00  60.50 ± 0.71" in lines[2]
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["lr_cluster"], row["seed"], row["cluster mIoU"]) for row in rows] == [
        ("0.005", "0", "30.0"), ("0.005", "1", "34.0"), ("0.02", "0", "20.0"), ("0.02", "1", ""),
    ]  # fmt: skip


def test_report__least_loss_is_best_without_labels(tmp_path):
    write_records(tmp_path, {("0.005", 0): {"val/loss": 0.5}, ("0.02", 0): {"val/loss": 0.9}})
    assert TrainingJobs().report(tmp_path).splitlines()[3].startswith("lr_cluster=0.005")


def test_report__unfinished_and_damaged_jobs_are_left_out(tmp_path):
    write_records(tmp_path, dict(list(SCORES.items())[:1]))
    (tmp_path / "seed=7").mkdir()
    (tmp_path / "seed=8").mkdir()
    (tmp_path / "seed=8" / "sweep_job.json").write_text('{"swe')
    assert len(TrainingJobs().report(tmp_path).splitlines()) == 5
    assert "no job has finished" in TrainingJobs().report(tmp_path / "seed=7")


def test_do__a_finished_job_is_not_run_again_unless_its_configuration_changed(tmp_path):
    write_halves(tmp_path / "data" / "halves")
    cfg = validated(TrainConfig, run_values(tmp_path))
    write_records(tmp_path, {("0.005", 0): {"cluster mIoU": 1.0}}, plain(cfg))
    folder = tmp_path / "lr_cluster=0.005,seed=0"
    started = []

    def run(words):
        started.append(words)
        raise InterruptedError

    TrainingJobs().do(cfg, {"lr_cluster": "0.005"}, folder, run)
    assert not started
    changed = validated(TrainConfig, run_values(tmp_path) | {"max_steps": 4})
    with pytest.raises(InterruptedError):
        TrainingJobs().do(changed, {"lr_cluster": "0.005"}, folder, run)
    place = [f"output_root={tmp_path}", "experiment_name='lr_cluster=0.005,seed=0'", "ckpt_path=last"]
    assert started == [place]


@pytest.mark.slow
def test_sweep__killed_in_the_middle_goes_on(tmp_path):
    write_halves(tmp_path / "data" / "halves")
    values = run_values(tmp_path) | {"experiment_name": "sweep"}
    values["backbone_kwargs"] = "{embed_dim: 48, depth: 4, num_heads: 3, img_size: 112}"
    script = ROOT / "src_EAGLE" / "train_segmentation_eigen.py"
    words = [*(f"{name}={value}" for name, value in values.items()), "crop_type=null"]
    command = [sys.executable, str(script), "--multirun", *words, "lr_cluster=5e-3,2e-2", "seed=0,1"]
    sweep = tmp_path / "outputs" / "sweep"
    process = subprocess.Popen(command)
    while len(list(sweep.glob("*/metrics.csv"))) < 2 and process.poll() is None:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(children, timeout=20)[1]
    finished = {path: path.stat().st_mtime_ns for path in sweep.glob("*/last_eval.json")}
    assert len(finished) == 1
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    table = done.stdout[done.stdout.index("setting") :].splitlines()
    assert {line.split()[0] for line in table[2:4]} == {"lr_cluster=0.005", "lr_cluster=0.02"}
    assert len((sweep / "sweep.csv").read_text().splitlines()) == 5
