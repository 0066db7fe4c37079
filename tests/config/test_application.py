"""Command lines as users type them, read in this process and by real commands."""

import os
import re
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from omegaconf import OmegaConf

import eagle
from conftest import ROOT
from eagle.commands import provisions
from eagle.config import words
from eagle.config.application import help_text, parse_command_line, short_name
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import validated
from eagle.config.words import quoted
from eagle.errors import ConfigError
from typed import typed

# A command that prints a few keys in place of training, which takes seconds.
PRINTER = """
from eagle.config.application import run_command
from eagle.config.schema import TrainConfig

def printer(cfg):
    print("JOB", cfg.res, cfg.lr_cluster, cfg.seed, cfg.fidelity, cfg.color_affinity, cfg.experiment_name, flush=True)
    if cfg.dim == 13 and cfg.seed == 1:
        raise SystemExit("error: the thirteenth")

if __name__ == "__main__":
    run_command(TrainConfig, printer, default_config="train_config_cocostuff")
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ress", "3"], "unknown key 'ress': did you mean 'res'?"),
        (["res=abc"], "res: "),
        (["seed=0,1"], "seed: add --multirun to run each of 0,1"),
        (["batch_size=0"], "batch_size: 0 "),
        (["momentum_limit=1.5"], "momentum_limit: 1.5 "),
        (["contrastive_temp=0"], "contrastive_temp: 0.0 "),
        (["momentum_limit=nan"], "momentum_limit: nan is not a finite number"),
        (["experiment_name=${nope}"], "experiment_name: Interpolation key 'nope' not found"),
        (["dataset_name=???"], "dataset_name: must be given: Dataset"),
        (["precision=64-true"], "unknown value of precision '64-true'"),
        (["~wandb"], "'~wandb'"),
        (["key_blocks=[???]"], "key_blocks[0]: must be given: Indices"),
        (["key_blocks.a=1"], "unknown key 'key_blocks.a': did you mean 'key_blocks'?"),
        (["fidelity=glob(*)"], "requires --multirun"),
        (["fidelity=papr"], "unknown value of fidelity 'papr': did you mean 'paper'?"),
        (["fidelity=[1,2]"], "unknown value of fidelity '[1,2]': choose from paper, released, strict"),
        (["--config-name", "train_config_cocostuf"], "train_config_cocostuf"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: "),
    ],
)
def test_command_line__errors_are_one_line_and_name_the_key(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse_command_line(TrainConfig, arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["res=448", "wandb=true", "experiment_name=a b"],
        ["--res", "448", "--wandb", "--experiment_name", "a b"],
        ["--res=448", "--wandb", "--experiment-name=a b"],
    ],
)
def test_command_line__both_spellings(arguments):
    cfg = parse_command_line(TrainConfig, arguments)
    assert (cfg.res, cfg.wandb, cfg.experiment_name) == (448, True, "a b")


@pytest.mark.parametrize(
    "value", ["/data/my set (1)/ü.ckpt", "it's", "it\\'s", "end\\", "50%", "C:\\data", "$HOME", "{a"]
)
def test_command_line__odd_values_arrive_as_typed(value):
    typed = ["--output_root", value, f"cache_dir={value}", f"project_name={quoted(f'{value},x')}"]
    cfg = parse_command_line(TrainConfig, typed)
    assert (cfg.output_root, cfg.cache_dir, cfg.project_name) == (value, value, f"{value},x")


@pytest.mark.parametrize(
    ("schema", "word", "expected"),
    [
        (EvalConfig, "model_paths=[a.ckpt,../b/*.ckpt]", ["a.ckpt", "../b/*.ckpt"]),
        (EvalConfig, "model_paths=a.ckpt,b.ckpt", ["a.ckpt", "b.ckpt"]),
        (provisions.CropConfig, "splits=val", ["val"]),
        (TrainConfig, "key_blocks=null", None),
        (TrainConfig, "backbone_kwargs={img_size: 112}", {"img_size": 112}),
        (TrainConfig, "backbone_kwargs.depth=4", {"depth": 4}),
        (EvalConfig, "a b.ckpt", ["a b.ckpt"]),
    ],
)
def test_command_line__lists_and_mappings(schema, word, expected):
    cfg = parse_command_line(schema, [word], positional="model_paths" if schema is EvalConfig else None)
    assert cfg[re.split(r"[.=]", word)[0] if "=" in word else "model_paths"] == expected


def test_config_name__by_name_and_path_and_the_users_own_file_in_the_current_folder(tmp_path, monkeypatch):
    for name in ("mine.yaml", "eval_config.yml"):
        (tmp_path / name).write_text("res: 72\noutput_root: ../\n" if name == "mine.yaml" else "res: 72\n")
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "mine.yaml"), "mine", "./mine"):
        cfg = parse_command_line(TrainConfig, ["--config-name", name, "pytorch_data_dir=data"])
        assert (cfg.res, cfg.output_root, cfg.pytorch_data_dir) == (72, "../", "data")
    assert parse_command_line(EvalConfig, ["--config-name", "./eval_config.yml"]).res == 72
    assert parse_command_line(EvalConfig, ["--config-name", "eval_config.yml"]).res != 72
    assert parse_command_line(TrainConfig, ["-cn", "train_config_directory.yml"]).dataset_name == "directory"


@pytest.mark.parametrize("content", ["dim: [1\n", "- a\n", "dimm: 3\n", "dim: \udcff\n", "[" * 5000])
def test_config_name__mistakes_in_the_file_are_one_line(tmp_path, content):
    (tmp_path / "broken.yml").write_text(content, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"broken\.yml: |did you mean 'dim'") as caught:
        parse_command_line(TrainConfig, ["--config-name", str(tmp_path / "broken.yml")])
    assert "\n" not in str(caught.value)


def test_files_of_configs__edited_in_place_count_from_their_folder(monkeypatch, tmp_path):
    """`output_root: outputs` never becomes src_EAGLE/outputs, and values such as `random` are not taken for paths."""
    monkeypatch.setattr(words, "CONFIG_DIR", tmp_path)
    (tmp_path / "edited.yml").write_text("output_root: outputs\npytorch_data_dir: /data\npretrained_weights: random\n")
    monkeypatch.chdir(ROOT / "src_EAGLE")
    cfg = parse_command_line(TrainConfig, ["--config-name", "edited"])
    places = cfg.output_root, cfg.pytorch_data_dir, cfg.pretrained_weights
    assert places == (str(tmp_path / "outputs"), "/data", "random")


def test_fidelity__sets_defaults_that_keys_override():
    paper = validated(TrainConfig, {"fidelity": "paper", "photometric": "released"})
    assert paper == parse_command_line(TrainConfig, ["fidelity=paper", "photometric=released"])
    assert (paper.color_affinity, paper.lambda_schedule, paper.photometric) == ("paper", "paper", "released")


def test_fidelity__typed_counts_more_than_the_keys_of_a_file(tmp_path, monkeypatch):
    """A run's config.yml has all keys; in Python as on the command line."""
    whole = OmegaConf.to_yaml(validated(TrainConfig, {"fidelity": "strict", "lr": 0.1}))
    (tmp_path / "config.yml").write_text(whole + "hydra: {job: {name: mine}}\n")
    file = ["--config-name", str(tmp_path / "config.yml")]
    monkeypatch.setattr("eagle.training.run.train", lambda cfg: cfg)
    typed = parse_command_line(TrainConfig, [*file, "fidelity=paper"])
    assert typed == eagle.train(file[1], fidelity="paper") == validated(TrainConfig, {"fidelity": "paper", "lr": 0.1})
    (tmp_path / "own.yml").write_text("eigen_signs: released\nphotometric: paper\n")
    own = parse_command_line(TrainConfig, ["--config-name", str(tmp_path / "own.yml"), "fidelity=released"])
    assert (own.eigen_signs, own.photometric) == ("released", "released"), "it does not set the signs"
    assert eagle.train(file[1]).eigen_signs == parse_command_line(TrainConfig, file).eigen_signs == "released"


@pytest.mark.parametrize("schema", [TrainConfig, EvalConfig])
def test_help__explains_every_key(schema, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    text = help_text(schema, test_help__explains_every_key, None)
    assert all(f"  {name}=" in text for name in OmegaConf.structured(schema))


def test_short_name__is_a_valid_and_distinct_file_name():
    assert short_name("lr_cluster=0.005,seed=0") == "lr_cluster=0.005,seed=0"
    names = [short_name(f"pretrained_weights={path}") for path in ("a/b", "a_b", "a b", "../a", "1" * 300)]
    assert len(set(names)) == 5
    assert not any("/" in name or len(name) > 200 for name in names)


@pytest.fixture
def said(tmp_path, capfd):
    """Runs a command in an empty folder and gives its status, lines of output and messages."""
    (tmp_path / "printer.py").write_text(PRINTER)

    def run(*words, **environment):
        done = typed(tmp_path / "printer.py", *words, PYTHONPATH=str(ROOT / "src_EAGLE"), **environment)
        jobs = capfd.readouterr()  # a sweep's jobs are processes
        return done.returncode, (done.stdout + jobs.out).splitlines(), jobs.err + done.stderr

    return run


def jobs(lines):
    return [line.removeprefix("JOB ") for line in lines if line.startswith("JOB ")]


def test_multirun__runs_every_combination_once_in_folders_of_their_own(said, tmp_path):
    words = ["lr_cluster=5e-3,2e-2", "--seed", "range(0,2)", "fidelity=paper", "experiment_name='a,b'"]
    status, lines, _ = said("--multirun", "--res=64", "output_root=out", *words)
    names = [f"lr_cluster={lr},seed={seed}" for lr in (0.005, 0.02) for seed in (0, 1)]
    assert status == 0
    expected = [f"64 {name[11:].replace(',seed=', ' ')} paper paper {name}" for name in names]
    assert jobs(lines) == expected
    assert {path.name for path in (tmp_path / "out" / "a,b").iterdir() if path.is_dir()} == set(names)
    assert {path.name for path in tmp_path.iterdir()} == {"printer.py", "out"}
    lines, errors = said("-m", "--res=64", "output_root=out", *words, "seed=1,2")[1:]
    assert len(jobs(lines)) == 2, "the finished ones are not run again"
    assert "seed=1: already finished" in errors
    lines, _ = said("-m", "--res=72", "output_root=out", *words)[1:]
    assert len(jobs(lines)) == 4, "those of another configuration are"


def test_multirun__values_may_be_quoted(said):
    words = ["-m", "output_root=out", "dir_dataset_name='a b','c'"]
    status, lines, _ = said(*words, "experiment_name=s", "res=64")
    assert (status, len(jobs(lines))) == (0, 2)


def test_multirun__a_sweep_of_one_seed_goes_on_with_two(said):
    words = ["-m", "output_root=out", "experiment_name=s", "res=64"]
    assert len(jobs(said(*words, "seed=0")[1])) == 1
    (job,) = jobs(said(*words, "seed=0,1")[1])
    assert job.endswith(" seed=1")


def test_multirun__a_job_with_weights_of_other_content_is_not_finished(said, tmp_path):
    weights = tmp_path / "w.pth"
    for content in ("one", "two"):
        weights.write_text(content)
        words = ["-m", "seed=0", "output_root=out", "experiment_name=s", f"pretrained_weights={weights}"]
        assert len(jobs(said(*words)[1])) == 1


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_multirun__other_jobs_go_on_after_a_failure_and_the_sweep_fails(said, tmp_path, launcher):
    if launcher != "basic":
        name = f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher"
        pytest.importorskip(name, reason="needs the extra [sweep]")
    words = ["-m", "seed=1,2", "output_root=out", "experiment_name=s", f"hydra/launcher={launcher}"]
    status, _, errors = said(*words, "dim=13")
    assert status == 1
    assert errors.splitlines()[-1].startswith("error: job seed=1 failed")
    assert "Traceback" not in errors
    assert len(list((tmp_path / "out" / "s").glob("seed=2/sweep_job.yml"))) == 1


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
        (["experiment_name=a,b"], "error: experiment_name: "),
        (["seed=0,1", "ckpt_path=last"], "error: ckpt_path: "),
    ],
)
def test_multirun__mistakes_are_one_line_before_the_first_job(said, tmp_path, words, message):
    status, lines, errors = said("--multirun", *words)
    assert (status, jobs(lines), len(errors.splitlines())) == (1, [], 1)
    assert message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["printer.py"]


def test_hydra__prints_the_configuration_and_writes_only_what_is_asked_for(said, tmp_path):
    status, lines, _ = said("--cfg", "job", "--res", "64", "fidelity=paper")
    shown = yaml.safe_load("\n".join(lines))
    assert (status, shown["res"], shown["color_affinity"], shown["dim"]) == (0, 64, "paper", 512)
    assert "hydra" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["printer.py"]
    assert said("hydra.output_subdir=.hydra", "hydra.run.dir=asked")[0] == 0
    assert (tmp_path / "asked" / ".hydra" / "overrides.yaml").is_file()


def test_config_dir__adds_files_and_groups(said, tmp_path):
    (tmp_path / "mine" / "speed").mkdir(parents=True)
    (tmp_path / "mine" / "small.yaml").write_text("res: 72\nhydra:\n  sweeper:\n    params:\n      seed: 4,5\n")
    (tmp_path / "mine" / "speed" / "slow.yaml").write_text("# @package _global_\nlr_cluster: 0.5\n")
    here = "--config-dir", "mine", "--config-name", "small"
    status, lines, errors = said(*here, "+speed=slow", "--seed", "3")
    assert (status, jobs(lines)) == (0, ["72 0.5 3 released released None"]), errors
    _, lines, errors = said(*here, "-m", "+speed=slow", "output_root=out")
    assert [line[:8] for line in jobs(lines)] == ["72 0.5 4", "72 0.5 5"], errors


def test_shell_completion__knows_keys(said):
    status, lines, _ = said("-sc", "query=bash", COMP_LINE="python printer.py eigen_cluster")
    assert (status, lines) == (0, ["eigen_cluster= eigen_cluster_out="])
