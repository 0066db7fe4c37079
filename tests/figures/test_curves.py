"""Curves of runs: what is drawn is what the CSV holds."""

import csv

import numpy as np
import pytest
from PIL import Image

from eagle.config.command_line import parse_command_line
from eagle.errors import ConfigError, DataError
from eagle.figures.curves import RUN_COLORS, curves_figure, first_object_step, running_median
from eagle.figures.rendering import rendered
from eagle.figures.run_metrics import Curve, read_run, read_runs
from plot_run import PlotConfig, plot_run

LOSSES = ("loss/total", "loss/pos_inter", "loss/linear")
SCORES = ("test/cluster/mIoU", "test/linear/Accuracy")


def write_run(folder, n=60, every=5, val_freq=20, switch=30, labels=True, seed=0):
    """A metrics.csv as the run's logger writes it: rows of losses, and between them rows of validations."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    columns = ["cd/update_params", "epoch", *LOSSES, "step", *(SCORES if labels else ()), "val/loss"]
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for step in range(n):
            if (step + 1) % every == 0:
                losses = {name: rng.normal() for name in LOSSES}
                table.writerow({"step": step, "epoch": 0, "cd/update_params": 0.5 * (step > switch), **losses})
            if (step + 1) % val_freq == 0:
                scores = {name: rng.uniform(20, 60) for name in SCORES} if labels else {}
                table.writerow({"step": step, "epoch": 0, "val/loss": rng.normal(), **scores})
    return folder


def logged(folder, column):
    """Steps done and logged values, read independently."""
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(column)]
    return [int(row["step"]) + 1 for row in rows], [float(row[column]) for row in rows]


def panel(figure, title):
    (ax,) = [ax for ax in figure.axes if ax.get_title(loc="left") == title]
    return ax


def lines_of(ax, color):
    """Lines of a colour, without the vertical ones."""
    return [line for line in ax.lines if line.get_color() == color and len(set(line.get_xdata())) > 1]


TITLES = {
    "loss/total": "total loss",
    "loss/pos_inter": "correspondence, positive pairs",
    "loss/linear": "linear probe: loss",
    "cd/update_params": "λ, share of the object-centric loss",
    "test/cluster/mIoU": "cluster probe: mIoU (%)",
    "test/linear/Accuracy": "linear probe: accuracy (%)",
    "val/loss": "validation loss, label-free",
}


def test_curves__of_several_runs_are_the_csvs_numbers(tmp_path):
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", n=40, labels=False, seed=1)]
    runs = read_runs(folders)
    figure = curves_figure(runs, smoothing=15)
    assert {ax.get_title(loc="left") for ax in figure.axes if ax.get_visible()} == set(TITLES.values())
    for column, title in TITLES.items():
        for folder, run, color in zip(folders, runs, RUN_COLORS, strict=False):
            batches, values = logged(folder, column)
            lines = lines_of(panel(figure, title), color)
            if not batches:
                assert not lines, "a run without labels has no scores"
                continue
            assert lines[0].get_xdata().tolist() == batches
            assert lines[0].get_ydata().tolist() == values
            if column in LOSSES:
                thin, thick = lines
                assert thin.get_linewidth() < thick.get_linewidth()
                assert thick.get_ydata().tolist() == running_median(run.curves[column], 15).tolist()
            else:
                assert len(lines) == 1
                marker = "None" if column == "cd/update_params" else "o"
                assert lines[0].get_marker() == marker
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert [line.get_color() for line in legend.get_lines()] == list(RUN_COLORS[:2])
    pixels = rendered(figure).reshape(-1, 3).astype(int)
    for color in RUN_COLORS[:2]:
        rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels - rgb).max(axis=1) <= 2).mean() > 1e-4


def test_curves__mark_where_lambda_sets_in(tmp_path):
    runs = read_runs([write_run(tmp_path / name, switch=switch) for name, switch in (("a", 30), ("b", 100))])
    assert [first_object_step(run) for run in runs] == [35, None]
    figure = curves_figure(runs)
    for ax in figure.axes:
        vertical = [line for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[-1]]
        assert [line.get_xdata()[0] for line in vertical] == ([35] if ax.get_visible() else [])


def test_running_median__equals_a_plain_loop():
    rng = np.random.default_rng(0)
    curve = Curve(np.cumsum(rng.integers(1, 9, 50)), rng.normal(size=50))
    for window in (1, 12, 10_000):
        expected = [
            np.median([v for b, v in zip(curve.steps, curve.values, strict=True) if abs(b - batch) <= window / 2])
            for batch in curve.steps
        ]
        assert running_median(curve, window).tolist() == expected
    assert running_median(curve, 1).tolist() == curve.values.tolist()


def test_curves__without_smoothing_only_logged_values(tmp_path):
    figure = curves_figure(read_runs([write_run(tmp_path / "a")]), smoothing=0)
    assert len(lines_of(panel(figure, "total loss"), RUN_COLORS[0])) == 1


def test_curves__more_runs_than_colours_differ_in_their_dashes(tmp_path):
    folders = [write_run(tmp_path / f"run {i}", seed=i) for i in range(len(RUN_COLORS) + 2)]
    lines = curves_figure(read_runs(folders)).legends[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(folders)


def test_curves__axes_of_scores_span_at_least_five_percent(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "metrics.csv").write_text("step,test/cluster/mIoU\n1,54.0\n3,54.4\n")
    figure = curves_figure(read_runs([folder]))
    low, high = panel(figure, "cluster probe: mIoU (%)").get_ylim()
    assert high - low >= 5


def test_read_runs__names_are_distinct_and_duplicates_are_dropped(tmp_path):
    first, second = (write_run(tmp_path / name / "seed_0") for name in "xy")
    assert [run.name for run in read_runs([first, second, first])] == ["x/seed_0", "y/seed_0"]
    assert [run.name for run in read_runs([first / ".." / "seed_0"])] == ["seed_0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"mine: not the folder of a training run: it has no metrics\.csv"),
        ("", r"metrics\.csv: no values yet"),
        ("loss/total,step\n", r"metrics\.csv: no values yet; a run writes the first after scalar_log_freq"),
        ("name,age\nx,3\n", r"metrics\.csv: not the metrics of a training run \(it has no column 'step'\)"),
        ("loss/total,step\nabc,3\n", r"metrics\.csv: not the metrics of a training run .*abc"),
        (b"\xff\xfe\x00", r"metrics\.csv: not the metrics of a training run"),
    ],
)
def test_read_run__says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "mine").mkdir()
    if content is not None:
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "mine" / "metrics.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_run(tmp_path / "mine", "mine")


def test_read_run__skips_a_half_written_row(tmp_path):
    folder = write_run(tmp_path / "a")
    whole = read_run(folder, "a")
    with (folder / "metrics.csv").open("a") as file:
        file.write("0.5,0,1.2")
    torn = read_run(folder, "a")
    assert {name: curve.values.tolist() for name, curve in torn.curves.items()} == {
        name: curve.values.tolist() for name, curve in whole.curves.items()
    }


def plot(*words):
    plot_run(parse_command_line(PlotConfig, words, positional="runs"))


def test_plot_run__one_run_into_its_folder_several_into_another(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("plot_run.SEVERAL_RUNS_DIR", str(tmp_path / "outputs" / "curves"))
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        write_run(tmp_path / name, seed=seed)
    plot("a")
    plot("a", "b", "smoothing=10")
    plot("b", f"output_dir={tmp_path / 'mine'}")
    for place in ("a", "outputs/curves", "mine"):
        assert np.asarray(Image.open(tmp_path / place / "curves.png")).std() > 10
    assert capsys.readouterr().out.splitlines()[:2] == ["a/curves.png", f"{tmp_path}/outputs/curves/curves.png"]
    assert not (tmp_path / "b" / "curves.png").exists()
    with pytest.raises(ConfigError, match="runs: name at least one run folder"):
        plot()
