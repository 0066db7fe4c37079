import csv
import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from conftest import ROOT, run_values
from eagle.config.schema import TrainConfig
from eagle.config.validation import plain, validated
from eagle.console import mean_and_deviation
from eagle.reports import sweep
from eagle.reports.sweep import TrainingJobs
from miniatures import write_halves

TRAINING = ROOT / "src_EAGLE" / "train_segmentation_eigen.py"
LIBRARY = {**os.environ, "PYTHONPATH": str(ROOT / "src_EAGLE")}
SCORES = {
    ("0.005", 0): {"mIoU": 30.0, "accuracy": 50.0},
    ("0.005", 1): {"mIoU": 34.0, "accuracy": 52.0},
    ("0.02", 0): {"mIoU": 20.0, "accuracy": 60.0},
    ("0.02", 1): {"mIoU": None, "accuracy": 61.0},
}


def typed(tmp_path):
    """The arguments of a three-batch run, as a user types them."""
    values = run_values(tmp_path) | {"experiment_name": "many"}
    values["backbone_kwargs"] = "{embed_dim: 48, depth: 4, num_heads: 3, img_size: 112}"
    return [*(f"{name}={value}" for name, value in values.items()), "crop_type=null"]


def write_records(root, scores, config=None):
    for (lr, seed), values in scores.items():
        folder = root / f"lr_cluster={lr},seed={seed}"
        folder.mkdir(parents=True)
        scores = [{"checkpoint": "last", "map": "cluster", "scores": values}]
        scored = {"checkpoints": ["last"], "run_crf": False}
        swept = {"lr_cluster": lr, "seed": str(seed)}
        record = {"swept": swept, "seed": seed, "scores": scores, "config": config, "scored": scored}
        (folder / "sweep_job.json").write_text(json.dumps(record))


def test_report__means_over_seeds_with_the_best_setting_last(tmp_path):
    write_records(tmp_path, SCORES)
    lines = TrainingJobs().report(tmp_path).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["lr_cluster=0.02", "lr_cluster=0.005"]
    assert "32.00 ± 2.83" in lines[3]
    assert "51.00 ± 1.41" in lines[3]
    assert "20.00  60.50 ± 0.71" in lines[2]
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["lr_cluster"], row["seed"], row["map"], row["mIoU"]) for row in rows] == [
        ("0.005", "0", "cluster", "30.0"), ("0.005", "1", "cluster", "34.0"),
        ("0.02", "0", "cluster", "20.0"), ("0.02", "1", "cluster", ""),
    ]  # fmt: skip


def test_report__least_loss_is_best_without_labels(tmp_path):
    write_records(tmp_path, {("0.005", 0): {"val/loss": 0.5}, ("0.02", 0): {"val/loss": 0.9}})
    assert TrainingJobs().report(tmp_path).splitlines()[3].split()[0] == "lr_cluster=0.005"


def test_report__unfinished_and_damaged_jobs_are_left_out(tmp_path):
    write_records(tmp_path, dict(list(SCORES.items())[:1]))
    (tmp_path / "seed=7").mkdir()
    (tmp_path / "seed=8").mkdir()
    (tmp_path / "seed=8" / "sweep_job.json").write_text('{"swe')
    assert len(TrainingJobs().report(tmp_path).splitlines()) == 5
    assert "no job has finished" in TrainingJobs().report(tmp_path / "seed=7")


def test_do__a_finished_job_is_not_run_again_unless_its_configuration_or_its_scores_changed(tmp_path, monkeypatch):
    write_halves(tmp_path / "data" / "halves")
    cfg = validated(TrainConfig, run_values(tmp_path))
    write_records(tmp_path, {("0.005", 0): {"mIoU": 1.0}}, plain(cfg))
    folder = tmp_path / "lr_cluster=0.005,seed=0"
    started = []

    def run(script, words, name):
        started.append(words)
        raise InterruptedError

    monkeypatch.setattr(sweep, "run_script", run)
    swept = {"lr_cluster": "0.005"}
    TrainingJobs().do(cfg, swept, folder, ["res=32"])
    assert not started
    changed = validated(TrainConfig, run_values(tmp_path) | {"max_steps": 4})
    for jobs, values in ((TrainingJobs(), changed), (TrainingJobs(run_crf=True), cfg)):
        with pytest.raises(InterruptedError):
            jobs.do(values, swept, folder, ["res=32"])
    place = [f"output_root={tmp_path}", "experiment_name='lr_cluster=0.005,seed=0'", "ckpt_path=last"]
    assert started == [["res=32", *place]] * 2


@pytest.mark.slow
def test_sweep__killed_in_the_middle_goes_on(tmp_path):
    write_halves(tmp_path / "data" / "halves")
    command = [sys.executable, str(TRAINING), "--multirun", *typed(tmp_path), "lr_cluster=5e-3,2e-2", "seed=0,1"]
    folder = tmp_path / "outputs" / "many"
    process = subprocess.Popen(command)
    while len(list(folder.glob("*/metrics.csv"))) < 2 and process.poll() is None:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(children, timeout=20)[1]
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*/last_eval.json")}
    assert len(finished) == 1
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    table = done.stdout[done.stdout.rindex("setting") :].splitlines()
    assert {line.split()[0] for line in table[2:4]} == {"lr_cluster=0.005", "lr_cluster=0.02"}
    assert len((folder / "sweep.csv").read_text().splitlines()) == 1 + 2 * 2 * 2


@pytest.mark.slow
def test_seeds__scores_last_and_best_of_each_seed_and_a_repeated_command_adds_seeds(tmp_path):
    write_halves(tmp_path / "data" / "halves")
    command = [sys.executable, str(ROOT / "scripts" / "seeds.py"), *typed(tmp_path), "run_crf=false"]
    folder = tmp_path / "outputs" / "many"
    for seeds in ("[3]", "[3,5]"):
        done = subprocess.run([*command, f"seeds={seeds}"], capture_output=True, text=True, check=True, env=LIBRARY)
    assert "seed=3: already finished" in done.stderr
    expected = []
    for seed in (3, 5):
        assert f"seed: {seed}\n" in (folder / f"seed={seed}" / "config.yml").read_text()
        scores = json.loads((folder / f"seed={seed}" / "last_eval.json").read_text())["scores"]
        expected.append(scores["cluster"]["strict"]["accuracy"])
    table = [line.split() for line in done.stdout[done.stdout.rindex("setting") :].splitlines()]
    row = next(words for words in table if words[:4] == ["all", "last", "cluster", "2"])
    assert row[-3:] == mean_and_deviation(expected).split()
    assert ["all", "best", "cluster", "2"] in [words[:4] for words in table]
    assert "best: highest cluster mIoU" in done.stdout


@pytest.mark.parametrize(
    ("labels", "words", "message"),
    [
        (False, [], "no labels to score"),
        (True, ["seeds=[1,1]"], "seeds: give at least one seed and none twice"),
        (True, ["experiment_name=null"], "experiment_name: set it"),
    ],
)
def test_seeds__mistakes_are_one_line_before_training(tmp_path, labels, words, message):
    write_halves(tmp_path / "data" / "halves", labels=labels)
    command = [sys.executable, str(ROOT / "scripts" / "seeds.py"), *typed(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=LIBRARY)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "outputs").exists()


def test_do__a_run_without_best_checkpoint_is_scored_by_its_last(tmp_path, monkeypatch, caplog):
    write_halves(tmp_path / "data" / "halves")
    scores = {protocol: {"mIoU": 10.0, "accuracy": 20.0} for protocol in ("published", "strict")}

    def run(script, words, name):
        folder = tmp_path / "outputs" / "seed=0"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.ckpt").touch()
        (folder / "last_eval.json").write_text(json.dumps({"scores": {"cluster": scores}}))

    monkeypatch.setattr(sweep, "run_script", run)
    jobs = TrainingJobs(("last", "best"))
    cfg = validated(TrainConfig, run_values(tmp_path))
    jobs.do(cfg, {"seed": "0"}, tmp_path / "outputs" / "seed=0", [])
    assert "wrote no best.ckpt" in caplog.text
    assert [line.split()[1] for line in jobs.report(tmp_path / "outputs").splitlines()[2:3]] == ["last"]
