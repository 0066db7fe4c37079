"""A run that is stopped or killed resumes as if it had never stopped."""

import csv
import importlib.metadata
import json
import multiprocessing
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import ROOT, TINY_VIT, run_values
from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.datamodule import SegmentationDataModule
from eagle.errors import CheckpointError, ConfigError, DataError, StoppedRunError
from eagle.models.backbone import build_backbone
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training import validation_pictures
from eagle.training.callbacks import LastCheckpoint
from eagle.training.run import train
from miniatures import write_halves

# Nine images in batches of two: epochs end after batches 5, 10, …; validations lie across them.
N_IMAGES, VAL_FREQ, MAX_STEPS = 9, 3, 13


@pytest.fixture(scope="module")
def make_config(tmp_path_factory):
    """Gives configurations of runs on one dataset."""
    folder = tmp_path_factory.mktemp("resume")
    write_halves(folder / "data" / "halves", n=N_IMAGES)

    def make(**overrides):
        values = {"max_steps": MAX_STEPS, "val_freq": VAL_FREQ, "checkpoint_freq": 4}
        return validated(TrainConfig, run_values(folder) | values | overrides)

    return make


PICTURES = {"n_images": 2, "pictures_kept": 2}


def tiny_grid(_when, pictures, *_):
    """A tiny picture of the first map, in place of the figures."""
    figure = Figure(figsize=(0.4, 0.4))
    figure.figimage(pictures[0].clusters["cluster"])
    return {"grid": figure}


def pictures_of(run_dir):
    return {path.name: path.read_bytes() for path in (run_dir / "pictures").iterdir()}


@pytest.fixture(scope="module")
def straight(make_config):
    """The run folder of an uninterrupted run with pictures; most runs that have to equal it draw none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation_pictures, "labelled_validation", tiny_grid)
        run_dir = train(make_config(experiment_name="straight", **PICTURES))
    assert {int(name.split("_")[1]) for name in pictures_of(run_dir)} == {6, 12}
    return run_dir


def stop_at(monkeypatch, hook, step, number=signal.SIGTERM):
    """Send this process a signal in the middle of a batch of training or validation."""
    original = getattr(LitUnsupervisedSegmenter, hook)

    def stopping(module, batch, batch_idx):
        if module.global_step == step and (hook == "training_step" or batch_idx == 0):
            os.kill(os.getpid(), number)
        return original(module, batch, batch_idx)

    monkeypatch.setattr(LitUnsupervisedSegmenter, hook, stopping)


def checkpoint(run_dir, name="last.ckpt"):
    return torch.load(run_dir / name, weights_only=True)


def assert_same_run(run_dir, other):
    """Parameters, optimiser, best checkpoint and every logged number, bit by bit."""
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = checkpoint(run_dir, name), checkpoint(other, name)
        assert ours["global_step"] == theirs["global_step"]
        assert all(torch.equal(tensor, theirs["state_dict"][key]) for key, tensor in ours["state_dict"].items())
        adam, expected = (content["optimizer_states"][0]["state"] for content in (ours, theirs))
        assert all(torch.equal(state["exp_avg_sq"], expected[number]["exp_avg_sq"]) for number, state in adam.items())
    assert (run_dir / "metrics.csv").read_text() == (other / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("hook", "step", "num_workers"),
    [
        ("training_step", 4, 2),  # the epoch's last batch
        pytest.param("training_step", 5, 0, marks=pytest.mark.slow),  # validated
        ("validation_step", 6, 0),
    ],
)
def test_resume__after_sigterm_equals_the_straight_run(make_config, straight, monkeypatch, hook, step, num_workers):
    name, before = f"{hook}_{step}", signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(validation_pictures, "labelled_validation", tiny_grid)
    with monkeypatch.context() as patch:
        stop_at(patch, hook, step)
        with pytest.raises(
            StoppedRunError, match=r"SIGTERM: stopped after \d+ steps, saved .*ckpt_path=last"
        ) as caught:
            train(make_config(experiment_name=name, num_workers=num_workers, **PICTURES))
    assert caught.value.exit_status == 143
    assert checkpoint(straight.parent / name)["global_step"] == (step + 1 if hook == "training_step" else step)
    run_dir = train(make_config(experiment_name=name, ckpt_path="last", **PICTURES))
    assert_same_run(run_dir, straight)
    assert pictures_of(run_dir) == pictures_of(straight)
    assert signal.getsignal(signal.SIGTERM) == before


def test_stop__a_signal_while_the_run_is_prepared_saves_the_first_step(make_config, straight, monkeypatch):
    """Lightning's handler would end the run as if it had finished, with nothing saved."""
    load = SegmentationDataModule.train_dataloader

    def signalled(data):
        os.kill(os.getpid(), signal.SIGTERM)
        return load(data)

    monkeypatch.setattr(SegmentationDataModule, "train_dataloader", signalled)
    with pytest.raises(StoppedRunError):
        train(make_config(experiment_name="early"))
    assert checkpoint(straight.parent / "early")["global_step"] == 1


def test_resume__after_a_kill_between_log_and_checkpoint_no_row_is_there_twice(make_config, straight, monkeypatch):
    """The losses of step 7 are in metrics.csv, its checkpoint is not there."""
    save = LastCheckpoint._save_if_due

    def killed(callback, trainer):
        if trainer.global_step == 8:
            raise RuntimeError("killed")
        save(callback, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "_save_if_due", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(make_config(experiment_name="unsaved"))
    run_dir = straight.parent / "unsaved"
    assert checkpoint(run_dir)["global_step"] == 4
    assert [row["step"] for row in csv.DictReader((run_dir / "metrics.csv").open())][-1] == "7"
    assert_same_run(train(make_config(experiment_name="unsaved", ckpt_path="last")), straight)


def test_resume__a_run_without_a_checkpoint_begins_and_a_stop_in_its_last_batch_ends_it(
    make_config, straight, monkeypatch
):
    """A cluster's script can always pass ckpt_path=last; steps before the first checkpoint are logged again."""
    run_dir = straight.parent / "begun"
    run_dir.mkdir()
    (run_dir / "metrics.csv").write_text("loss/total,step\n1.0,0\n")
    stop_at(monkeypatch, "training_step", MAX_STEPS - 1)
    assert_same_run(train(make_config(experiment_name="begun", ckpt_path="last")), straight)


def test_resume__finished_run_changes_nothing_and_can_be_made_longer(make_config, straight):
    """Made longer, it equals the uninterrupted run."""
    values, max_steps = {"experiment_name": "finished"}, 7
    run_dir = train(make_config(**values, max_steps=max_steps))
    before = [(run_dir / name).read_bytes() for name in ("last.ckpt", "best.ckpt", "metrics.csv")]
    train(make_config(**values, max_steps=max_steps, ckpt_path="last"))
    assert [(run_dir / name).read_bytes() for name in ("last.ckpt", "best.ckpt", "metrics.csv")] == before
    first, second = json.loads((run_dir / "run.json").read_text())
    assert (first["command"], first["packages"]["torch"]) == (sys.argv, importlib.metadata.version("torch"))
    assert (first["resumed_from"], second["resumed_from"]) == (None, str(run_dir / "last.ckpt"))
    assert_same_run(train(make_config(**values, ckpt_path="last")), straight)


def test_resume__in_another_folder_keeps_the_best_checkpoint(make_config, monkeypatch):
    """The best of this run lies before the place where it is stopped."""
    scores = iter([0.5, 0.2, 0.3, 0.4])
    original = LitUnsupervisedSegmenter.on_validation_epoch_end

    def scored(module):
        original(module)
        module.trainer.callback_metrics["test/cluster/mIoU"] = torch.tensor(next(scores))

    monkeypatch.setattr(LitUnsupervisedSegmenter, "on_validation_epoch_end", scored)
    here = train(make_config(experiment_name="here", max_steps=7))
    there = here.rename(here.with_name("there"))
    assert checkpoint(there, "best.ckpt")["global_step"] == VAL_FREQ
    train(make_config(experiment_name="there", ckpt_path="last"))
    assert next(scores, None) is None
    assert checkpoint(there, "best.ckpt")["global_step"] == VAL_FREQ


def test_resume__without_its_best_checkpoint_the_next_validation_is_the_best(make_config, monkeypatch):
    falling = count(100, -1)
    original = LitUnsupervisedSegmenter.on_validation_epoch_end

    def scored(module):
        original(module)
        module.trainer.callback_metrics["test/cluster/mIoU"] = torch.tensor(float(next(falling)))

    monkeypatch.setattr(LitUnsupervisedSegmenter, "on_validation_epoch_end", scored)
    run_dir = train(make_config(experiment_name="lost", max_steps=7))
    (run_dir / "best.ckpt").unlink()
    train(make_config(experiment_name="lost", ckpt_path="last"))
    assert checkpoint(run_dir, "best.ckpt")["global_step"] > 7


def test_resume__inside_the_run_folder_names_the_run(make_config, monkeypatch):
    run_dir = train(make_config(experiment_name="inside", max_steps=7))
    monkeypatch.chdir(run_dir)
    assert train(make_config(ckpt_path="last.ckpt")) == run_dir
    assert f"experiment_name: {run_dir.name}" in (run_dir / "config.yml").read_text()


def test_resume__tensorboard_has_each_batch_once(make_config):
    """Also those after the checkpoint, which an earlier start had logged."""
    values = {"experiment_name": "curves", "tensorboard": True, "checkpoint_freq": 3}
    run_dir = train(make_config(**values, max_steps=3))
    early = (run_dir / "last.ckpt").read_bytes()
    train(make_config(**values, max_steps=5, ckpt_path="last"))
    (run_dir / "last.ckpt").write_bytes(early)
    train(make_config(**values, max_steps=5, ckpt_path="last"))
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/total")] == list(range(5))


def run_to_the_end(cfg):
    torch.set_num_threads(1)
    train(cfg)


def start(context, cfg):
    process = context.Process(target=run_to_the_end, args=(cfg,))
    process.start()
    return process


def kill_after(process, metrics, n_rows, delay):
    """Kill a run some seconds after that many rows were logged; whether it was still running."""
    while process.is_alive() and (not metrics.exists() or metrics.read_text().count("\n") <= n_rows):
        time.sleep(0.005)
    time.sleep(delay)
    running = process.is_alive()
    process.kill()
    process.join()
    return running


@pytest.mark.slow
def test_resume__after_kill_9_equals_the_straight_run(make_config):
    """Killed again and again, each time in another batch. A forked server's children wait long for loader processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["eagle.training.run"])
    draw, kills, batches = random.Random(0), 2, 8
    values = {"max_steps": batches * (kills + 1), "checkpoint_freq": 2, "val_freq": 6, "num_workers": 2}
    whole = make_config(experiment_name="whole", **values)
    torn = make_config(experiment_name="killed", **values)
    whole_dir, torn_dir = (Path(cfg.output_root) / cfg.experiment_name for cfg in (whole, torn))
    processes = [start(context, whole)]
    cfg, n_killed = torn, 0
    for turn in range(kills):
        n_rows = batches * turn + draw.randrange(3, batches)
        n_killed += kill_after(start(context, cfg), torn_dir / "metrics.csv", n_rows, draw.uniform(0, 0.05))
        cfg = make_config(**{**torn, "ckpt_path": "last"})
    processes.append(start(context, cfg))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert n_killed == kills
    assert_same_run(torn_dir, whole_dir)


def test_resume__a_torn_checkpoint_is_refused_and_what_a_kill_left_is_removed(make_config):
    run_dir = train(make_config(experiment_name="torn", max_steps=2))
    whole = (run_dir / "last.ckpt").read_bytes()
    (run_dir / ".eagle-unfinished-0a_b1c2d.ckpt").write_bytes(whole[:100])  # as a kill leaves it
    train(make_config(experiment_name="torn", max_steps=3, ckpt_path="last"))
    assert not list(run_dir.glob(".*"))
    (run_dir / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"last\.ckpt: not a readable checkpoint"):
        train(make_config(experiment_name="torn", ckpt_path="last"))


def write_weights(path, seed):
    torch.manual_seed(seed)
    torch.save(build_backbone("vit_small", 8, "random", **TINY_VIT).state_dict(), path)
    return str(path)


def test_resume__other_weights_or_fewer_steps_are_refused(make_config, tmp_path):
    """Whatever the file is called: a run with random weights was often only tried out."""
    weights, values = write_weights(tmp_path / "w.pth", 1), {"experiment_name": "weights", "max_steps": 4}
    train(make_config(**values, pretrained_weights=weights))
    moved = str(Path(weights).rename(tmp_path / "moved.pth"))
    train(make_config(**values | {"ckpt_path": "last", "max_steps": 5}, pretrained_weights=moved))
    write_weights(tmp_path / "moved.pth", 2)
    for other in (moved, "random"):
        with pytest.raises(ConfigError, match=rf"pretrained_weights: {other} has other weights .*last\.ckpt"):
            train(make_config(**values | {"ckpt_path": "last", "max_steps": 6}, pretrained_weights=other))
    with pytest.raises(ConfigError, match=r"max_steps: .*last\.ckpt has 5 steps, more than 4"):
        train(make_config(**values, ckpt_path="last", pretrained_weights=moved))


def test_resume__other_training_images_are_refused(make_run, tmp_path):
    run_dir = train(make_run())
    images, labels = (tmp_path / "data" / "halves" / kind / "train" for kind in ("imgs", "labels"))
    for folder in (images, labels):
        (folder / "0a.png").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"last\.ckpt: was trained on other images .*\(4 then, 5 now\)"):
        train(make_run(ckpt_path="last", max_steps=4))
    for folder in (images, labels):
        (folder / "0a.png").unlink()
    assert train(make_run(ckpt_path="last", max_steps=4)) == run_dir


def test_resume__a_model_without_training_state_is_refused(make_config, straight, tmp_path):
    released = {name: value for name, value in checkpoint(straight).items() if name != "random_states"}
    torch.save(released, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"model\.ckpt holds a model but no training state"):
        train(make_config(ckpt_path=str(tmp_path / "model.ckpt")))
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"], "nothing is written beside it"


def test_slurm__warned_of_its_end_a_job_saves_asks_to_be_requeued_and_goes_on(
    make_config, straight, monkeypatch, tmp_path
):
    asked = tmp_path / "asked"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = {"JOB_ID": "4711", "JOB_NAME": "eagle", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for variable, value in (job | {"ARRAY_JOB_ID": "4700", "ARRAY_TASK_ID": "11", "NODELIST": "127.0.0.1"}).items():
        monkeypatch.setenv(f"SLURM_{variable}", value)
    with monkeypatch.context() as patch:
        stop_at(patch, "training_step", 6, signal.SIGUSR1)
        with pytest.raises(StoppedRunError, match=r"SIGUSR1: .*; SLURM will restart job 4700_11"):
            train(make_config(experiment_name=None))
    assert asked.read_text() == "requeue 4700_11\n"
    # The job's script is the same: it does not say ckpt_path.
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run_dir = train(make_config(experiment_name=None))
    assert run_dir.name == "halves_vit_small_job_4700_11"
    assert_same_run(run_dir, straight)


@pytest.mark.slow
def test_command__sigterm_exits_143_and_the_printed_command_resumes(make_config, tmp_path):
    """Through real processes, as typed."""
    cfg = make_config(experiment_name="typed run", max_steps=100_000)
    run_dir = Path(cfg.output_root) / "typed run"
    words = [f"{name}={value}" for name, value in run_values(run_dir.parents[1]).items() if name != "backbone_kwargs"]
    words += ["backbone_kwargs={embed_dim: 48, depth: 4, num_heads: 3, img_size: 112}", "model_type=vit_small"]
    words += ["experiment_name=typed run", "max_steps=100000", "num_workers=2"]
    command = [sys.executable, "train_segmentation_eigen.py", "--config-name", "train_config_directory", *words]
    place = {"cwd": ROOT / "src_EAGLE", "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **place, start_new_session=True)
    while process.poll() is None and not (run_dir / "last.ckpt").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # to the loader processes too, as `timeout` and SLURM do
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "Traceback" not in stderr
    printed = re.search(r"resume with: (.*)", stderr)[1]
    step = checkpoint(run_dir)["global_step"]
    again = [*shlex.split(printed), f"max_steps={step + 2}", "num_workers=1"]
    done = subprocess.run(again, **(place | {"cwd": tmp_path}), timeout=300)
    assert done.returncode == 0, done.stderr
    assert checkpoint(run_dir)["global_step"] == step + 2
    with (run_dir / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["loss/total"]]
    assert steps == list(range(1, step + 3))
