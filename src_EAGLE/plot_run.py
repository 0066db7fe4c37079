"""Draw curves of training runs: ``python plot_run.py RUN_FOLDER … [key=value]``."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import key
from eagle.errors import ConfigError
from eagle.files import default_folder

SEVERAL_RUNS_DIR = default_folder("outputs/curves")
FILE_NAME = "curves.png"


@dataclass
class PlotConfig:
    """Keys of ``plot_run.py``."""

    runs: list[str] = key([], "Folders of training runs, finished or running")
    output_dir: str | None = key(
        None, f"Folder for {FILE_NAME}; none = the run's folder, or {SEVERAL_RUNS_DIR} for several runs", path=True
    )
    smoothing: int | None = key(
        None,
        "Steps spanned by the running median of the losses (thick line); 0 = no median; none = a twentieth of the "
        "longest run, at least three logged values",
        minimum=0,
    )


def plot_run(cfg: DictConfig) -> None:
    """Draw losses, λ and scores of one or several runs over optimiser steps, from their metrics.csv."""
    if not cfg.runs:
        raise ConfigError("runs: name at least one run folder")
    from eagle.figures.confusion import write_figure
    from eagle.figures.curves import curves_figure, read_runs

    runs = read_runs([Path(run) for run in cfg.runs])
    default = cfg.runs[0] if len(runs) == 1 else SEVERAL_RUNS_DIR
    path = Path(cfg.output_dir or default) / FILE_NAME
    write_figure(path, curves_figure(runs, cfg.smoothing))
    print(path)


def main() -> None:
    """Run the command."""
    run_command(PlotConfig, plot_run, positional="runs")


if __name__ == "__main__":
    main()
