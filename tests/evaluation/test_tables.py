"""Tables over many runs against numbers worked out by hand, and a sweep that is killed, goes on and is evaluated."""

import csv
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from scipy import stats

from conftest import ROOT, run_values
from eagle.checkpoint_evaluation import runs_report
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import plain, validated
from eagle.console import code_version
from eagle.evaluation.tables import (
    KMEANS,
    collect,
    differences_table,
    evaluation_record,
    scores_table,
    stored_evaluation,
)
from eagle.figures.charts import trees_figure
from miniatures import write_halves
from typed import typed


def content(miou, dataset="a", kmeans=None, **keys):
    """What evaluating a run returns: mIoU ``miou`` and 2 more after refinement; accuracy 50."""

    def entry(value):
        scores = {"mIoU": value, "accuracy": 50.0}
        return {"published": scores, "strict": scores}

    found = {"dataset": dataset, "config": plain(validated(TrainConfig, keys))}
    found["scores"] = {"cluster": entry(miou), "cluster+spectral": entry(None if miou is None else miou + 2)}
    return found | ({"kmeans": {"cluster": entry(kmeans)}} if kmeans is not None else {})


def sweep(*rows):
    return {f"run{number}/last.ckpt": content(miou, **keys) for number, (miou, keys) in enumerate(rows)}


TWO = sweep(
    (30.0, {"lr": 0.1, "seed": 0}), (34.0, {"lr": 0.1, "seed": 1}), (38.0, {"lr": 0.1, "seed": 2}),
    (20.0, {"lr": 0.2, "seed": 0, "num_workers": 3, "output_root": "elsewhere"}), (25.0, {"lr": 0.2, "seed": 1}),
)  # fmt: skip


def cells(table, *first):
    """The other cells of a table's row, empty ones left out."""
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines()]
    return next(row[len(first) :] for row in rows if tuple(row[: len(first)]) == first)


def test_tables__settings_are_the_keys_that_differ_but_for_the_seed_and_the_machine():
    runs = collect(TWO)
    assert [run.setting for run in runs] == [{"lr": "0.1"}] * 3 + [{"lr": "0.2"}] * 2
    assert cells(scores_table(runs), "1. lr=0.1")[:2] == ["3", "34.00 ± 4.00 / 50.00 ± 0.00"]
    assert cells(scores_table(runs), "2. lr=0.2")[2] == "24.50 ± 3.54 / 50.00 ± 0.00"
    same = collect(sweep((1.0, {"seed": 0}), (2.0, {"seed": 1})))
    assert {run.name for run in same} == {"all"}


def test_tables__another_fixed_key_is_another_setting_and_a_data_set_a_table_of_its_own(tmp_path):
    contents = sweep(
        (1.0, {"seed": 0, "dir_dataset_name": "a"}),
        (2.0, {"seed": 0, "dir_dataset_name": "a", "max_steps": 9}),
        (3.0, {"dataset": "b", "seed": 0, "dir_dataset_name": "b"}),
    )
    names = [(run.dataset, run.name) for run in collect(contents)]
    assert names == [("a", "max_steps=10000"), ("a", "max_steps=9"), ("b", "max_steps=10000")]
    text = runs_report(contents, tmp_path)
    assert [line.split()[0] for line in text.splitlines() if "mIoU / accuracy" in line] == ["a:", "b:"]
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["max_steps"], row["map"], row["mIoU"]) for row in rows[:3]] == [
        ("a", "10000", "cluster", "1.0"), ("a", "10000", "cluster+spectral", "3.0"), ("a", "9", "cluster", "2.0"),
    ]  # fmt: skip
    stored = json.loads((tmp_path / "runs.json").read_text())
    assert (stored["command"], stored["code"]) == (sys.argv, code_version())
    assert stored["runs"][1]["setting"] == {"max_steps": "9"}
    assert stored["runs"][1]["scores"]["cluster"]["mIoU"] == 2.0
    assert np.asarray(Image.open(tmp_path / "runs.png")).std() > 5


def test_tables__an_undefined_score_is_counted_not_dropped(tmp_path):
    runs = collect(
        sweep((20.0, {"seed": 0}), (None, {"seed": 1}), (7.0, {"seed": 0, "lr": 0.2}), (8.0, {"seed": 1, "lr": 0.2}))
    )
    assert cells(scores_table(runs), "1. lr=0.0005")[1] == "20.00 (1 of 2) / 50.00 ± 0.00"
    assert cells(differences_table(runs), "2. cluster") == ["-13.0 (1 of 2)"]
    undefined = {path: content(None, seed=seed) for seed, path in enumerate(("x/last.ckpt", "y/last.ckpt"))}
    runs_report(undefined, tmp_path)
    assert ",cluster,,50.0," in (tmp_path / "runs.csv").read_text()


def test_trees_figure__pairs_each_tree_with_the_probe_of_its_run():
    rows = [(value, {"lr": lr, "seed": 0}) for value, lr in ((10.0, 0.1), (12.0, 0.2), (14.0, 0.1))]
    contents = dict(zip(("a/last.ckpt", "b/last.ckpt", "a/last_tree.ckpt"), sweep(*rows).values(), strict=True))
    dots, diagonal = trees_figure(collect(contents)).axes[0].lines
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([12.0], [16.0]), "refined; the other probe has no tree"
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert trees_figure(collect(TWO)) is None


def test_differences__are_paired_over_common_seeds_with_scipys_interval():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 6)).tolist()
    pairs = [(lr, seed, value) for lr, found in ((0.1, theirs), (0.2, ours)) for seed, value in enumerate(found)]
    rows = [(value, {"lr": lr, "seed": seed}) for lr, seed, value in pairs]
    table = differences_table(collect(sweep(*rows, (100.0, {"lr": 0.2, "seed": 9}))))
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    half = (interval.high - interval.low) / 2
    shown = f"{interval.low + half:+.1f} ± {half:.1f}"
    assert cells(table, "2. cluster") == [shown]
    assert cells(table, "2. cluster+spectral") == [shown, "+2.0 ± 0.0*"], "like for like"
    assert cells(differences_table(collect(TWO)), "2. cluster") == ["-9.5 ± 6.4*"], "10 and 9 lower: 12.7 / √2 · 0.71"
    assert differences_table(collect(sweep((1.0, {"lr": 0.1, "seed": 0})))).count("\n") == 2, "one pair: refinement"
    unrefined = [replace(run, scores={"cluster": run.scores["cluster"]}) for run in collect(TWO)]
    assert "unrefined" not in differences_table(unrefined)


def test_collect__names_runs_of_one_setting_and_seed(caplog):
    collect(TWO)
    assert not caplog.messages
    collect(sweep((1.0, {"seed": 0}), (2.0, {"seed": 1}), (3.0, {"seed": 0})))
    assert len(caplog.messages) == 1
    assert "both count as runs" in caplog.messages[0]


def test_stored_evaluation__counts_only_for_the_same_weights_settings_and_files(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"weights")

    def cfg(**keys):
        return validated(EvalConfig, {"report": False, "n_images": 0} | keys)

    assert stored_evaluation(path, cfg()) is None
    stored = content(3.0) | evaluation_record(path, cfg())
    (tmp_path / "last_eval.json").write_text(json.dumps(stored))
    assert stored_evaluation(path, cfg(batch_size=3, num_workers=1)) == stored
    for changed in ({"res": 32}, {"refine": "both"}, {"precision": "bf16-mixed"}, {"report": True}):
        assert stored_evaluation(path, cfg(**changed)) is None
    path.write_bytes(b"others")
    assert stored_evaluation(path, cfg()) is None


def test_stored_evaluation__has_written_the_files_itself(tmp_path):
    """A report of an earlier evaluation is not this one's."""
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"weights")
    cfg = validated(EvalConfig, {"report": True, "n_images": 0})
    (tmp_path / "last_report.html").touch()
    for files, counts in ((["report"], True), ([], False)):
        stored = content(3.0) | evaluation_record(path, cfg) | {"files": files}
        (tmp_path / "last_eval.json").write_text(json.dumps(stored))
        assert (stored_evaluation(path, cfg) is not None) is counts


@pytest.mark.slow
def test_sweep__killed_in_the_middle_goes_on_and_is_evaluated_once(tmp_path):
    write_halves(tmp_path / "data" / "halves")
    values = run_values(tmp_path) | {"experiment_name": "many", "crop_type": "null"}
    values["backbone_kwargs"] = "{embed_dim: 48, depth: 4, num_heads: 3, img_size: 112}"
    words = [f"{name}={value}" for name, value in values.items()]
    training = [sys.executable, str(ROOT / "src_EAGLE" / "train_segmentation_eigen.py"), "--multirun", *words]
    training += ["seed=0,1"]
    folder = Path(tmp_path / "outputs" / "many")
    process = subprocess.Popen(training)
    while len(list(folder.glob("*/metrics.csv"))) < 2 and process.poll() is None:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(children, timeout=20)[1]
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*/last.ckpt")}
    assert len(list(folder.glob("*/sweep_job.yml"))) == 1
    done = subprocess.run(training, capture_output=True, text=True, check=True)
    assert "seed=0: already finished" in done.stderr
    first = folder / "seed=0" / "last.ckpt"
    assert first.stat().st_mtime_ns == finished[first]
    evaluation = ["run_crf=false", "report=false", "n_images=0", "num_workers=0", "accelerator=cpu", "res=32"]
    script = ROOT / "src_EAGLE" / "eval_segmentation.py"
    texts = [typed(script, f"{folder}/*/last.ckpt", *evaluation) for _ in range(2)]
    tables = [text.stdout[text.stdout.rindex("mIoU / accuracy") :] for text in texts]
    assert tables[0] == tables[1]
    assert texts[1].stderr.count("scored before") == 2
    assert cells(tables[0], "1. all")[0] == "2"
    assert len((folder / "runs.csv").read_text().splitlines()) == 1 + 2 * 2


def test_kmeans__of_the_keys_is_a_setting_of_its_own_once_a_seed():
    runs = collect(sweep((30.0, {"lr": 0.1, "kmeans": 20.0}), (31.0, {"lr": 0.2, "kmeans": 20.0})))
    assert [run.name for run in runs] == [KMEANS, "lr=0.1", "lr=0.2"]
    assert cells(differences_table(runs), "2. cluster") == ["+10.0"]


def test_kmeans__of_other_keys_is_another_setting(tmp_path):
    rows = ((30.0, {"key_blocks": [1], "kmeans": 20.0}), (31.0, {"key_blocks": [2], "kmeans": 25.0}))
    contents = sweep(*rows)
    runs = collect(contents)
    assert [run.name for run in runs[:2]] == [f"{KMEANS}, key_blocks=[1]", f"{KMEANS}, key_blocks=[2]"]
    assert [run.miou("cluster") for run in runs[:2]] == [20.0, 25.0]
    runs_report(contents, tmp_path)
    rows = list(csv.DictReader((tmp_path / "runs.csv").open(encoding="utf-8")))
    assert [row[KMEANS] for row in rows if row["map"] == "cluster"] == ["yes", "yes", "", ""]


def test_tables__of_trees_and_probes_with_extra_clusters_are_strict():
    """A tree's extra clusters always count as errors; the published protocol ignores those of a probe."""

    def with_extra(published, strict, checkpoint):
        protocols = {"published": published, "strict": strict}
        entry = {name: {"mIoU": value, "accuracy": value, "IoU": {"a": value}} for name, value in protocols.items()}
        found = content(0.0) | {"scores": {"cluster": {**entry, "clusters": 2}}}
        return {f"run/{checkpoint}.ckpt": found}

    probe, tree = with_extra(40.0, 30.0, "last"), with_extra(35.0, 35.0, "last_tree")
    assert cells(differences_table(collect(probe | tree)), "2. cluster") == ["+5.0"]
    assert "strict mIoU" in scores_table(collect(probe | tree))
    assert cells(scores_table(collect(probe)), "1. all") == ["1", "40.00 / 40.00"]
