"""Hydra's own options, as users type them; real processes, because Hydra reads ``sys.argv`` and the main script."""

import os
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from conftest import ROOT
from eagle.config.hydra_options import split_hydra_options
from eagle.config.parsing import split_arguments
from eagle.config.sweep_folders import job_name
from eagle.errors import ConfigError

TRAINING = ROOT / "src_EAGLE" / "train_segmentation_eigen.py"
# A command that prints a few keys in place of training, which takes seconds.
PRINTER = """
from eagle.config.command_line import run_command
from eagle.config.schema import TrainConfig

def printer(cfg):
    print("JOB", cfg.res, cfg.lr_cluster, cfg.seed, cfg.fidelity, cfg.color_affinity, cfg.experiment_name, flush=True)
    if cfg.dim == 13 and cfg.seed == 1:
        raise SystemExit("error: the thirteenth")

if __name__ == "__main__":
    run_command(TrainConfig, printer, default_config="train_config_cocostuff")
"""


@pytest.fixture
def said(tmp_path):
    """Runs a script in an empty folder and gives its status, lines of output and messages."""
    (tmp_path / "printer.py").write_text(PRINTER)

    def run(*words, script=None, **environment):
        command = [sys.executable, script or tmp_path / "printer.py", *words]
        variables = {**os.environ, "PYTHONPATH": str(ROOT / "src_EAGLE"), **environment}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=300)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


def jobs(lines):
    return [line.removeprefix("JOB ") for line in lines if line.startswith("JOB ")]


def test_multirun__runs_every_combination_of_lists_ranges_and_choices(said, tmp_path):
    words = ["lr_cluster=5e-3,2e-2", "--seed", "range(0,2)", "fidelity=choice(paper)", "experiment_name='a,b'"]
    status, lines, _ = said("--multirun", "--res=64", "output_root=out", *words)
    assert status == 0
    assert jobs(lines) == [f"64 {lr} {seed} paper paper a,b" for lr in (0.005, 0.02) for seed in (0, 1)]
    assert {path.name for path in tmp_path.iterdir()} == {"printer.py", "out"}


def test_multirun__other_jobs_go_on_after_a_failure_and_the_sweep_fails(said):
    status, lines, errors = said("-m", "seed=0,1,2", "dim=13", "output_root=out")
    assert status == 1
    assert len(jobs(lines)) == 3
    assert errors.splitlines()[-1].startswith("error: job seed=1 failed")
    assert "Traceback" not in errors


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_multirun__launchers_run_every_job_and_report_a_failure(said, tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher", reason="needs the extra [sweep]")
    # Output of submitit's jobs goes to its log files.
    marker = "import pathlib; pathlib.Path(f'{cfg.output_root}/seen_{cfg.seed}').touch(); print"
    script = tmp_path / "marker.py"
    script.write_text(PRINTER.replace("print(", f"{marker}("))
    words = ["-m", "seed=0,1,2", "output_root=out", f"hydra/launcher={launcher}"]
    status, _, errors = said(*words, script=script)
    assert status == 0, errors
    assert {path.name for path in (tmp_path / "out").glob("seen_*")} == {"seen_0", "seen_1", "seen_2"}
    status, _, errors = said(*words, "dim=13", script=script)
    assert status == 1
    assert errors.splitlines()[-1].startswith("error: job seed=1 failed")


@pytest.mark.slow
def test_multirun__jobs_of_a_killed_joblib_sweep_end_with_it(said, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra [sweep]")
    marker = "import time, pathlib; pathlib.Path('started').touch(); time.sleep(120)"
    (tmp_path / "marker.py").write_text(PRINTER.replace('print("JOB"', f'{marker}; print("JOB"'))
    words = ["-m", "seed=0,1", "output_root=out", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src_EAGLE")}
    sweep = subprocess.Popen([sys.executable, "marker.py", *words], cwd=tmp_path, env=variables)
    while not (tmp_path / "started").exists() and sweep.poll() is None:
        time.sleep(0.1)
    children = psutil.Process(sweep.pid).children(recursive=True)
    sweep.kill()
    sweep.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for process in alive:
        process.kill()
    assert not alive


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sed=0,1"], "error: unknown key 'sed': did you mean 'seed'?"),
        (
            ["centroid_mode=medoid,prototyp"],
            "error: unknown value of centroid_mode 'prototyp': did you mean 'prototype'?",
        ),
        (["batch_size=8,0"], "error: batch_size: 0 is too small; the least is 1"),
        (["experiment_name=a,b"], "error: experiment_name: names the folder of the whole sweep"),
        (["seed=0,1", "ckpt_path=last"], "error: ckpt_path: the runs of a sweep resume"),
        (["seed=0,1", "hydra/launcher=nowhere"], "Could not find 'hydra/launcher/nowhere'"),
    ],
)
def test_multirun__mistakes_are_one_line_before_the_first_job(said, tmp_path, words, message):
    status, lines, errors = said("--multirun", *words)
    assert status == 1
    assert not jobs(lines)
    assert len(errors.splitlines()) == 1
    assert message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["printer.py"]


def test_cfg_job__prints_every_key_and_runs_nothing(said, tmp_path):
    status, lines, _ = said("--cfg", "job", "--res", "64", "fidelity=paper", script=TRAINING)
    shown = yaml.safe_load("\n".join(lines))
    assert status == 0
    assert (shown["res"], shown["color_affinity"], shown["dim"]) == (64, "paper", 512)
    assert "hydra" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["printer.py"]


def test_config_dir__adds_files_and_groups(said, tmp_path):
    (tmp_path / "mine" / "speed").mkdir(parents=True)
    (tmp_path / "mine" / "small.yaml").write_text("res: 72\nhydra:\n  sweeper:\n    params:\n      seed: 4,5\n")
    (tmp_path / "mine" / "speed" / "slow.yaml").write_text("# @package _global_\nlr_cluster: 0.5\n")
    status, lines, _ = said("--config-dir", "mine", "--config-name", "small", "+speed=slow", "--seed", "3")
    assert (status, jobs(lines)) == (0, ["72 0.5 3 released released None"])
    status, lines, errors = said(
        "--config-dir", "mine", "--config-name", "small", "-m", "+speed=slow", "output_root=out"
    )
    assert jobs(lines) == [f"72 0.5 {seed} released released None" for seed in (4, 5)], errors
    status, _, errors = said("--config-dir", "mine", "--config-name", "small", "ress=3")
    assert (status, errors) == (1, "error: unknown key 'ress': did you mean 'res'?\n")


def test_shell_completion__knows_keys_and_installs(said):
    line = "python printer.py eigen_cluster"
    status, lines, _ = said("-sc", "query=bash", COMP_LINE=line)
    assert (status, lines) == (0, ["eigen_cluster= eigen_cluster_out="])
    status, lines, _ = said("--shell-completion", "install=bash")
    assert status == 0
    assert any("complete -o nospace" in line for line in lines)


def test_split_hydra_options__leaves_keys_and_values_alone():
    words = ["a b.jpg", "--res", "64", "--shift_value", "-0.1", "-x", "key=--multirun"]
    assert split_hydra_options(words) == (None, words)
    assert split_hydra_options(["res=3", "--config-name", "mine"])[1] == ["res=3", "--config-name", "mine"]
    with pytest.raises(ConfigError, match="invalid choice: 'jb'"):
        split_hydra_options(["--cfg", "jb"])


def test_split_arguments__a_flag_does_not_swallow_a_launcher():
    assert split_arguments(["--wandb", "hydra/launcher=joblib"])[1] == ["wandb=true", "hydra/launcher=joblib"]


def test_job_name__is_a_valid_and_distinct_file_name():
    assert job_name({"seed": "0", "lr_cluster": "0.005"}) == "lr_cluster=0.005,seed=0"
    paths = [job_name({"pretrained_weights": path}) for path in ("a/b", "a_b", "a b")]
    assert len(set(paths)) == 3
    assert not any("/" in name for name in paths)
    assert len(job_name({"key_blocks": "1" * 300})) < 200
