"""The study: its plan, its statistics, and a miniature that is interrupted and finished."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from conftest import ROOT
from eagle.errors import ConfigError, TrainingError
from eagle.figures.bars import bars_figure
from eagle.figures.rendering import rendered
from eagle.reports.study import running
from eagle.reports.study.configurations import check_settings_differ, configuration
from eagle.reports.study.plan import Run, read_plan
from eagle.reports.study.report import write_study
from eagle.reports.study.running import do_runs
from eagle.reports.study.statistics import half_width, paired_difference
from eagle.reports.study.tables import comparisons, comparisons_text, miou_table
from miniatures import write_directory

PLAN = """
recipe: train_config_directory
training:
  {model_type: vit_small, dino_patch_size: 8, pretrained_weights: random, res: 32, val_res: 32, max_steps: 4,
   backbone_kwargs: {embed_dim: 48, depth: 4, num_heads: 3}, batch_size: 2, val_freq: 2, step_schedulers: 1, dim: 16,
   feature_samples: 3, n_images: 0, num_workers: 0, cached_views: 2, cache_features: disk, extra_clusters: 0}
settings:
  plain: {momentum_limit: 0.0}
  object: {momentum_limit: 0.5}
baselines: [plain]
runs:
  - {settings: [plain], datasets: [mine], seeds: [0, 1], crf: true}
  - {settings: [object, plain], datasets: [mine], seeds: [0, 1]}
"""


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.yml"
    path.write_text(PLAN)
    return path


def test_plan__each_run_once_in_order_with_its_keys(plan_file):
    plan = read_plan(plan_file)
    runs = [(run.setting, run.seed, run.crf) for run in plan.runs]
    assert runs == [("plain", 0, True), ("plain", 1, True), ("object", 0, False), ("object", 1, False)]
    keys = plan.overrides(plan.runs[2])
    assert (keys["momentum_limit"], keys["max_steps"], keys["dir_dataset_name"], keys["seed"]) == (0.5, 4, "mine", 0)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("baselines: [plain]", "baselines: [plane]", "unknown baseline 'plane'.*plain"),
        ("[object, plain]", "[objet, plain]", "unknown setting 'objet'.*object"),
        ("seeds: [0, 1]}", "seed: [0, 1]}", "unknown key 'seed'.*seeds"),
        ("baselines: [plain]", "", "lacks baselines"),
        ("baselines: [plain]", "baselines: []", "baselines: name at least one setting"),
        ("settings:\n", "settings: [\n", "cannot be read"),
    ],
)
def test_plan__mistakes_are_named_with_the_file(plan_file, wrong, right, message):
    plan_file.write_text(PLAN.replace(wrong, right))
    with pytest.raises(ConfigError, match=message) as caught:
        read_plan(plan_file)
    assert str(plan_file) in str(caught.value)


def test_paired_difference__is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    ours, theirs = (dict(enumerate(rng.normal(size=6))) for _ in range(2))
    difference = paired_difference(ours | {9: 100.0}, theirs)
    interval = stats.ttest_rel(list(ours.values()), list(theirs.values())).confidence_interval(0.95)
    assert difference.n == 6
    assert difference.mean - difference.half_width == pytest.approx(interval.low)
    assert difference.mean + difference.half_width == pytest.approx(interval.high)


def test_paired_difference__one_pair_is_never_clear_and_no_pair_is_none():
    assert not paired_difference({0: 10.0}, {0: 0.0}).is_clear
    assert paired_difference({0: 10.0}, {1: 0.0}) is None
    assert half_width([1.0, 1.0]) == 0


def test_comparisons__pair_seeds_within_a_data_set():
    def content(cluster):
        maps = {
            "cluster": cluster,
            "cluster+spectral": cluster + 2,
            "kmeans": cluster + 1,
            "kmeans+spectral": cluster + 3,
        }
        return {"scores": {name: {"mIoU": value} for name, value in maps.items()}, "best": cluster + 0.5}

    table = miou_table(
        {Run("a", "plain", seed, False): content(10.0 + 5 * seed) for seed in range(3)}
        | {Run("a", "object", seed, False): content(12.0 + 5 * seed) for seed in range(3)}
    )
    found = comparisons(table, ["plain", "object"])
    difference = found["cluster: setting − plain"]["a"]["object"]
    assert (difference.mean, difference.half_width, difference.is_clear) == (2.0, 0.0, True)
    assert found["cluster + spectral of setting − cluster of plain"]["a"]["object"].mean == 4
    assert found["cluster: setting − object"]["a"]["plain"].mean == -2
    assert found["kmeans: spectral − none"]["a"]["plain"].mean == 2
    assert "+2.0 ± 0.0*" in comparisons_text(found)


def test_study__an_interrupted_one_goes_on_and_reports_what_is_there(plan_file, tmp_path, monkeypatch):
    write_directory(tmp_path)
    plan, root = read_plan(plan_file), tmp_path / "study"
    machine = {"pytorch_data_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache"), "accelerator": "cpu"}
    monkeypatch.setattr(running, "ProcessPoolExecutor", InThisProcess)
    first = plan.runs[:2]
    do_runs(plan.__class__(**{**vars(plan), "runs": first}), root, machine, processes=1)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("scores.json")}
    assert len(before) == 4, "two runs and k-means of the keys with their seeds"
    assert "object" not in write_study(plan, root)
    do_runs(plan, root, machine, processes=1)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    text = write_study(plan, root)
    assert all(name in text for name in ("plain", "object", "keys", "kmeans+crf", "within: start"))
    runs = json.loads((root / "study.json").read_text())["runs"]
    assert len(runs) == 6
    scores = runs[-1]["scores"]
    assert scores.keys() == {f"{name}{part}" for name in ("linear", "cluster", "kmeans") for part in ("", "+spectral")}
    assert all(0 <= entry["mIoU"] <= 100 for entry in scores.values())
    for name in ("cluster", "kmeans", "steps"):
        assert np.asarray(Image.open(root / f"{name}.png")).std() > 5


def test_study__settings_that_are_the_same_are_refused(plan_file, tmp_path):
    """The recipe has prototype_scope=image, so a setting without the key has it too."""
    plan_file.write_text(PLAN.replace("momentum_limit: 0.5}", "momentum_limit: 0.0, prototype_scope: image}"))
    with pytest.raises(ConfigError, match="settings plain and object give the same configuration of train_config_dir"):
        do_runs(read_plan(plan_file), tmp_path / "study", {}, processes=1)
    assert not (tmp_path / "study").exists()


def test_study_yml__settings_differ_and_released_ones_share_prototypes_over_the_batch():
    plan = read_plan(ROOT / "scripts" / "study.yml")
    check_settings_differ(plan)
    scopes = {run.setting: configuration(plan, run).prototype_scope for run in plan.runs}
    assert scopes["released"] == "batch"
    assert all(scope == "image" for name, scope in scopes.items() if "image" in name)


def test_study__runs_with_other_keys_than_the_plan_are_refused(plan_file, tmp_path):
    folder = tmp_path / "study" / "mine" / "plain" / "seed_0"
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text('{"crf": true, "scores": {}}')
    (folder / "config.yml").write_text("momentum_limit: 0.25\nmax_steps: 4\noutput_root: elsewhere\n")
    for act in (
        lambda plan: do_runs(plan, tmp_path / "study", {}, 1),
        lambda plan: write_study(plan, tmp_path / "study"),
    ):
        with pytest.raises(
            ConfigError, match=r"seed_0: done with momentum_limit=0\.25 instead of 0\.0; move the folder"
        ):
            act(read_plan(plan_file))


def test_study__a_failed_run_does_not_stop_the_others(plan_file, tmp_path, monkeypatch):
    write_directory(tmp_path)
    plan_file.write_text(PLAN.replace("[plain], datasets: [mine]", "[plain], datasets: [missing]"))
    plan, root = read_plan(plan_file), tmp_path / "study"
    monkeypatch.setattr(running, "ProcessPoolExecutor", InThisProcess)
    machine = {"pytorch_data_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache"), "accelerator": "cpu"}
    with pytest.raises(TrainingError, match=r"4 of 10 runs failed, the first is missing/.*no such folder"):
        do_runs(plan, root, machine, processes=1)
    assert len(list(root.glob("mine/*/*/scores.json"))) == 6


def test_study__an_unexpected_error_is_named_and_the_others_go_on(plan_file, tmp_path, monkeypatch, caplog):
    plan = read_plan(plan_file)
    monkeypatch.setattr(running, "ProcessPoolExecutor", InThisProcess)
    done = []

    def failing(cfg, run, folder, single_thread):
        done.append(run.setting)
        if run.setting == "plain":
            raise RuntimeError("out of memory")

    monkeypatch.setattr(running, "_do_run", failing)
    with pytest.raises(TrainingError, match=r"2 of 6 runs failed, the first is mine/plain/seed_[01]: out of memory"):
        do_runs(plan, tmp_path / "study", {}, processes=1)
    assert done.count("object") == 2
    assert "Traceback" in caplog.text


def test_study__a_wrong_value_stops_it_before_the_first_run(plan_file, tmp_path):
    plan_file.write_text(PLAN.replace("momentum_limit: 0.5", "momentum_limit: 7.0"))
    with pytest.raises(ConfigError, match=r"momentum_limit: 7\.0 is too large"):
        do_runs(read_plan(plan_file), tmp_path / "study", {}, processes=1)


class InThisProcess:
    """An executor that does its jobs at once."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def test_figures__show_every_setting():
    scores = {"a": {"plain": [10, 12, 11], "object": [20.0]}, "b": {"plain": [5, 6]}}
    figure = bars_figure(scores, "mIoU")
    assert len(figure.axes[0].patches) == 3
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"plain", "object"}
    assert rendered(figure).std() > 5
