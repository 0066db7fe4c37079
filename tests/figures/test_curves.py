"""Curves of runs: what is drawn is what the CSV holds."""

import csv

import numpy as np
import pytest
from PIL import Image

from eagle.commands.runs import PlotConfig, plot_run
from eagle.config.application import parse_command_line
from eagle.errors import ConfigError, DataError
from eagle.figures.curves import RUN_COLORS, curves_figure, read_run, read_runs

# Logged name → panel title, of what ``write_run`` logs.
TITLES = {
    "loss/total": "total loss",
    "loss/pos_inter": "correspondence, positive pairs",
    "λ": "λ, share of the object-centric loss",
    "test/cluster/mIoU": "cluster probe: mIoU (%)",
    "val/loss": "validation loss, label-free",
}


def write_run(folder, n=60, every=5, val_freq=20, switch=30, labels=True, seed=0):
    """A metrics.csv as the run's logger writes it: rows of losses, and between them rows of validations."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*TITLES, "loss/linear", "step", "epoch"])
        table.writeheader()
        for step in range(n):
            row = {"step": step + 1, "epoch": 0}
            if (step + 1) % every == 0:
                losses = {"loss/total": rng.normal(), "loss/pos_inter": rng.normal(), "loss/linear": 0.0}
                table.writerow({**row, "λ": 0.5 * (step > switch), **losses})
            if (step + 1) % val_freq == 0:
                scores = {"test/cluster/mIoU": rng.uniform(54, 55)} if labels else {}
                table.writerow({**row, "val/loss": rng.normal(), **scores})
    return folder


def logged(folder, column):
    """Steps done and logged values, read independently."""
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(column)]
    return [int(row["step"]) for row in rows], [float(row[column]) for row in rows]


def test_curves__of_several_runs_are_the_csvs_numbers(tmp_path):
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", n=40, labels=False, switch=100, seed=1)]
    runs = read_runs(folders)
    figure = curves_figure(runs)
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_visible()}
    assert set(panels) == set(TITLES.values()), "no panel of the linear loss, which is 0 throughout"
    for column, title in TITLES.items():
        ax = panels[title]
        vertical = [line for line in ax.lines if len(set(line.get_xdata())) == 1]
        assert [line.get_xdata()[0] for line in vertical] == [30], "the last step logged with λ = 0, of the first run"
        for folder, color in zip(folders, RUN_COLORS, strict=False):
            lines = [line for line in ax.lines if line.get_color() == color]
            steps, values = logged(folder, column)
            if not steps:
                assert not lines, "a run without labels has no scores"
                continue
            assert lines[0].get_xdata().tolist() == steps
            assert lines[0].get_ydata().tolist() == values
            assert len(lines) == (2 if column.startswith("loss/") else 1)
            if column.startswith("loss/"):
                medians = [np.median(values[i : i + 3]) for i in range(len(values) - 2)]
                assert lines[1].get_ydata()[1:-1].tolist() == medians
    assert {line.get_drawstyle() for line in panels[TITLES["λ"]].lines[:2]} == {"steps-pre"}
    low, high = panels[TITLES["test/cluster/mIoU"]].get_ylim()
    assert high - low >= 5, "small differences look small"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


@pytest.mark.parametrize("content", [None, b"loss/total,step\n", b"\xff\xfe\x00"])
def test_read_run__says_which_file_is_no_run(tmp_path, content):
    (tmp_path / "mine").mkdir()
    if content is not None:
        (tmp_path / "mine" / "metrics.csv").write_bytes(content)
    with pytest.raises(DataError, match="mine") as caught:
        read_run(tmp_path / "mine")
    assert "\n" not in str(caught.value)


def test_read_run__skips_a_half_written_row(tmp_path):
    folder = write_run(tmp_path / "a")
    whole = {name: curve.values.tolist() for name, curve in read_run(folder).items()}
    with (folder / "metrics.csv").open("a") as file:
        file.write("0.5,0,1.2")
    assert {name: curve.values.tolist() for name, curve in read_run(folder).items()} == whole


def test_plot_run__one_run_into_its_folder_several_into_another(tmp_path, monkeypatch, capsys):
    def plot(*words):
        plot_run(parse_command_line(PlotConfig, words, positional="runs"))

    monkeypatch.setattr("eagle.commands.runs.SEVERAL_RUNS_DIR", str(tmp_path / "outputs" / "curves"))
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        write_run(tmp_path / name, seed=seed)
    plot("a")
    plot("a", "b")
    for place in ("a", "outputs/curves"):
        assert np.asarray(Image.open(tmp_path / place / "curves.png")).std() > 10
    assert capsys.readouterr().out.splitlines() == ["a/curves.png", f"{tmp_path}/outputs/curves/curves.png"]
    assert not (tmp_path / "b" / "curves.png").exists()
    with pytest.raises(ConfigError, match="runs: name at least one run folder"):
        plot()
