import json
import statistics

import pytest

from conftest import run_values
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import validated
from eagle.console import mean_and_deviation
from eagle.errors import DataError
from eagle.reports.seeds import run_seeds
from miniatures import write_halves

EVALUATION = {"num_workers": 0, "accelerator": "cpu", "run_crf": False, "n_images": 0}


def test_mean_and_deviation__of_a_sample():
    assert mean_and_deviation([1.0, 2.0, 6.0]) == "3.00 ± 2.65"
    assert mean_and_deviation([2.5]) == "2.50"


def test_run_seeds__mean_over_runs_that_differ_in_their_seed_alone(tmp_path):
    write_halves(tmp_path / "data" / "halves")
    training = validated(TrainConfig, run_values(tmp_path) | {"experiment_name": "many"})
    table = run_seeds([3, 5], training, validated(EvalConfig, EVALUATION))
    folder = tmp_path / "outputs" / "many"
    report = json.loads((folder / "seeds.json").read_text())
    expected = []
    for seed in (3, 5):
        assert f"seed: {seed}\n" in (folder / f"seed_{seed}" / "config.yml").read_text()
        scores = json.loads((folder / f"seed_{seed}" / "last_eval.json").read_text())["scores"]
        assert report["last"][str(seed)] == scores
        expected.append(scores["cluster"]["strict"]["accuracy"])
    row = next(line for line in table.splitlines() if line.split()[:2] == ["last", "cluster"])
    assert row.endswith(f"{statistics.mean(expected):.2f} ± {statistics.stdev(expected):.2f}")
    assert "best: highest test/cluster/mIoU" in table
    again = run_seeds([3, 5], training, validated(EvalConfig, EVALUATION))
    assert again == table


def test_run_seeds__without_labels_says_so_before_training(tmp_path):
    write_halves(tmp_path / "data" / "halves", labels=False)
    training = validated(TrainConfig, run_values(tmp_path))
    with pytest.raises(DataError, match="no labels to score"):
        run_seeds([0], training, validated(EvalConfig, EVALUATION))
    assert not (tmp_path / "outputs").exists()
