"""Compare two gloo processes on the CPU with one process; all fast tests share one start of the two."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from conftest import ROOT, run_values
from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import validated, with_overrides
from eagle.data.datamodule import SegmentationDataModule
from eagle.distributed import machine_arguments
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training import validation_pictures
from eagle.training.run import train
from miniatures import write_halves

WORLD = 2
BATCH = 2  # of each process
# gather_batch, centroid_mode, batches done; λ is 0 before batch 1
CASES = [
    (False, "prototype", 0),
    (False, "learned", 9),
    (True, "prototype", 9),
    (True, "mean", 0),
    (True, "learned", 9),
]


class Total(nn.Module):
    """The loss as a forward pass, because DistributedDataParallel wraps modules."""

    def __init__(self, segmenter):
        super().__init__()
        self.segmenter = segmenter
        self.terms = {}

    def forward(self, batch, step, coords, perms):
        self.terms = self.segmenter.losses(batch, step, coords, perms)
        return self.terms["loss/total"]


def segmenter_of(cfg, gather, centroid_mode):
    torch.manual_seed(0)
    cfg = with_overrides(cfg, gather_batch=gather, centroid_mode=centroid_mode, step_schedulers=0)
    return LitUnsupervisedSegmenter(2, cfg).eval()


def global_inputs(gather):
    """Batch, points and negatives of all processes; without gathering, negatives index a process's own share."""
    generator = torch.Generator().manual_seed(1)
    n = WORLD * BATCH
    img = torch.randn(n, 3, 32, 32, generator=generator)
    label = torch.randint(-1, 2, (n, 32, 32), generator=generator)
    label[BATCH:] = -1  # one process has no labels at all: its linear probe has nothing to learn from
    batch = {"img": img, "img_aug": img + 0.2 * torch.randn(img.shape, generator=generator), "label": label}
    coords = torch.rand(3, n, 3, 3, 2, generator=generator) * 2 - 1
    perms = torch.tensor([[1, 2, 3, 0], [2, 3, 0, 1]]) if gather else torch.tensor([[1, 0, 1, 0]])
    return batch, coords, perms


def share(inputs, rank, gather):
    batch, coords, perms = inputs
    rows = slice(rank * BATCH, (rank + 1) * BATCH)
    local = {name: values[rows] for name, values in batch.items()}
    return (local, coords, perms) if gather else (local, coords[:, rows], perms[:, rows])


def distributed_step(cfg, rank, case):
    gather, centroid_mode, step = case
    module = Total(segmenter_of(cfg, gather, centroid_mode))
    parallel = DistributedDataParallel(module)
    inputs = share(global_inputs(gather), rank, gather)
    for _ in range(2):  # a parameter without a gradient would fail the second forward
        module.zero_grad()
        parallel(inputs[0], step, *inputs[1:]).backward()
    return {
        "terms": {name: float(value.detach()) for name, value in module.terms.items()},
        "gradients": {name: p.grad for name, p in module.named_parameters() if p.grad is not None},
    }


def scores_in_training(cfg):
    """Lightning's validation, as it runs between batches."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(**machine_arguments(cfg), use_distributed_sampler=False, **quiet)
    trainer.validate(segmenter_of(cfg, False, "prototype"), SegmentationDataModule(cfg), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}


def rank_program(rank, port, values, checkpoint, folder):
    """Run by each of the two processes; writes its results to ``folder/rankN.pt``."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=WORLD)
    cfg = validated(TrainConfig, values | {"devices": WORLD, "strategy": "ddp"})
    result = {case: distributed_step(cfg, rank, case) for case in CASES}
    torch.manual_seed(rank)
    drawn = segmenter_of(cfg, True, "prototype")
    torch.manual_seed(rank)
    result["drawn"] = float(drawn.losses(share(global_inputs(True), rank, True)[0], 9)["loss/pos_inter"].detach())
    result["validation"] = scores_in_training(cfg)
    evaluate_checkpoint(checkpoint, evaluation_config(devices=WORLD))
    drawn, frequencies = [], validation_pictures.frequencies_figure
    validation_pictures.frequencies_figure = lambda *args: drawn.append(args[3].tolist()) or frequencies(*args)
    result["labelled"] = drawn
    result["run_dir"] = str(train(with_overrides(cfg, experiment_name=None, gather_batch=True, n_images=2)))
    torch.save(result, folder / f"rank{rank}.pt")


def evaluation_config(**overrides):
    values = {"num_workers": 0, "n_images": 5, "accelerator": "cpu", "batch_size": 1, "run_prediction": True}
    return validated(EvalConfig, values | {"run_crf": False, "crop": True} | overrides)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A dataset of five images, a checkpoint, and the results of one process."""
    folder = tmp_path_factory.mktemp("distributed")
    write_halves(folder / "data" / "halves", n=5)
    values = run_values(folder) | {"batch_size": 1, "dim": 32, "step_schedulers": 1}
    cfg = validated(TrainConfig, values)
    run_dir = train(cfg)
    return folder, values, run_dir / "last.ckpt"


@pytest.fixture(scope="module")
def both(alone):
    """The results of the two processes."""
    folder, values, checkpoint = alone
    copy = folder / "elsewhere" / "last.ckpt"
    copy.parent.mkdir()
    copy.write_bytes(checkpoint.read_bytes())
    arguments = free_port(), values, copy, folder
    # Forked from a server that has imported all: this process may have threads of autograd, which a fork would break.
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(["eagle.checkpoint_evaluation"])
    torch.multiprocessing.start_processes(rank_program, arguments, nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(WORLD)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("case", CASES)
def test_losses__gradients_of_two_processes_equal_one_process(alone, both, case):
    """Gathered: every term equals that of the whole batch. Not gathered: the mean of the shares' losses."""
    gather, centroid_mode, step = case
    module = Total(segmenter_of(validated(TrainConfig, alone[1]), gather, centroid_mode))
    inputs = global_inputs(gather)
    totals, terms = [], []
    for rank in [0] if gather else range(WORLD):
        batch, coords, perms = inputs if gather else share(inputs, rank, gather)
        totals.append(module(batch, step, coords, perms))
        terms.append({name: float(value.detach()) for name, value in module.terms.items()})
    (sum(totals) / len(totals)).backward()
    for name in terms[0]:
        found = [result[case]["terms"][name] for result in both]
        if gather:
            assert sum(found) / WORLD == pytest.approx(terms[0][name], rel=1e-4, abs=1e-6), name
        else:
            assert found == pytest.approx([term[name] for term in terms], rel=1e-4, abs=1e-6), name
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            for result in both:
                gradient = result[case]["gradients"][name]
                error = (gradient - parameter.grad).norm()
                assert error <= 1e-4 * parameter.grad.norm() + 1e-7, name
    assert set(both[0][case]["gradients"]) == {name for name, p in module.named_parameters() if p.requires_grad}


def test_losses__processes_of_a_gathered_batch_draw_the_same_points(both):
    """Their generators differ, but their loss terms must not."""
    assert both[0]["drawn"] == both[1]["drawn"]


def test_validation__uneven_shares_score_exactly_as_one_process(alone, both):
    cfg = validated(TrainConfig, alone[1])
    expected = scores_in_training(cfg)
    assert len(expected) == 4
    assert both[0]["validation"] == both[1]["validation"] == expected


def test_evaluate__uneven_shares_score_and_draw_exactly_as_one_process(alone, both):
    _, _, checkpoint = alone
    expected = evaluate_checkpoint(checkpoint, evaluation_config())
    elsewhere = checkpoint.parents[2] / "elsewhere"
    found = json.loads((elsewhere / "last_eval.json").read_text())
    assert found["scores"] == json.loads(json.dumps(expected["scores"]))
    for path in (checkpoint.parent / "last_predictions").rglob("*.png"):
        assert path.read_bytes() == (elsewhere / path.relative_to(checkpoint.parent)).read_bytes()
    assert (elsewhere / "last_grid.png").read_bytes() == (checkpoint.parent / "last_grid.png").read_bytes()
    reports = [(folder / "last_report.html").read_text(encoding="utf-8") for folder in (elsewhere, checkpoint.parent)]
    # Above are place and time, below is the configuration.
    found, expected = (text[text.index('id="scores"') : text.index('id="configuration"')] for text in reports)
    assert found == expected


def test_train__processes_agree_on_one_run_folder(both, alone):
    run_dirs = {result["run_dir"] for result in both}
    assert len(run_dirs) == 1
    (run_dir,) = run_dirs
    written = {path.name for path in (alone[0] / "outputs").glob("*/*") if str(path.parent) == run_dir}
    assert {"config.yml", "metrics.csv", "best.ckpt", "last.ckpt"} <= written
    assert len(list((alone[0] / "outputs").iterdir())) == 2, "this run's folder and that of the one process"


def test_train__pictures_count_the_images_of_all_processes(both, alone):
    """Only rank zero draws; it counts every labelled pixel of the split once."""
    data = SegmentationDataModule(validated(TrainConfig, alone[1]))
    labels = torch.cat([batch["label"] for batch in data.val_dataloader()])
    expected = [(labels == class_id).sum() for class_id in range(2)]
    assert [result["labelled"] for result in both] == [[expected], []]


def arguments(folder, values, **overrides):
    """A training command on both processes, with its configuration in a file."""
    values = values | {"devices": WORLD, "strategy": "ddp", "max_steps": 100_000} | overrides
    config = folder / f"{values['experiment_name']}.yml"
    config.write_text(yaml.safe_dump(values))
    return [str(ROOT / "src_EAGLE" / "train_segmentation_eigen.py"), "--config-name", str(config)]


def environment(**overrides):
    return os.environ | {"PYTHONPATH": str(ROOT / "src_EAGLE"), "OMP_NUM_THREADS": "1"} | overrides


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "victim"), [("lightning", 1), ("torchrun", 0)])
def test_train__a_killed_process_ends_the_run_with_an_error(alone, launcher, victim):
    folder, values, _ = alone
    name = f"killed_{launcher}_{victim}"
    command = [sys.executable, *arguments(folder, values, experiment_name=name, checkpoint_freq=1)]
    if launcher == "torchrun":
        options = ["--nproc_per_node", str(WORLD), "--master_port", str(free_port())]
        command[1:1] = ["-m", "torch.distributed.run", *options]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
    started: list[psutil.Process] = []
    try:
        wait_for(lambda: (folder / "outputs" / name / "last.ckpt").exists() or process.poll() is not None)
        started = psutil.Process(process.pid).children(recursive=True)
        ranks = [child.pid for child in started if "train_segmentation_eigen" in " ".join(child.cmdline())]
        os.kill((ranks if launcher == "torchrun" else [process.pid, *ranks])[victim], signal.SIGKILL)
        assert process.wait(timeout=150) != 0
        wait_for(lambda: not any(map(alive, started)), seconds=60)
    finally:
        for child in filter(alive, started):
            child.kill()
        process.kill()


@pytest.mark.slow
def test_train__a_signal_to_one_process_saves_and_stops_them_all(alone):
    """They stop after the same step, and resume together with the random states of both."""
    folder, values, _ = alone
    name = "terminated"
    log = folder / f"{name}.log"
    ports = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}

    def run(**overrides):
        """Both processes, as torchrun would start them."""
        command = [sys.executable, *arguments(folder, values, experiment_name=name, ckpt_path="last", **overrides)]
        with log.open("a") as out:
            ranks = [environment(**ports, LOCAL_RANK=str(rank), RANK=str(rank)) for rank in range(WORLD)]
            return [subprocess.Popen(command, stdout=out, stderr=out, env=rank) for rank in ranks]

    processes = run(checkpoint_freq=1)
    try:
        wait_for(lambda: (folder / "outputs" / name / "last.ckpt").exists())
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(timeout=60) for process in processes] == [143, 143], log.read_text()
        stopped = torch.load(folder / "outputs" / name / "last.ckpt", weights_only=True)
        assert len(stopped["random_states"]) == WORLD
        processes = run(max_steps=stopped["global_step"] + 2)
        assert [process.wait(timeout=120) for process in processes] == [0, 0], log.read_text()
    finally:
        for process in processes:
            process.kill()
    again = torch.load(folder / "outputs" / name / "last.ckpt", weights_only=True)
    assert again["global_step"] == stopped["global_step"] + 2


@pytest.mark.slow
def test_train__under_slurm_every_task_is_a_rank(alone):
    """With the environment that ``srun --ntasks=2`` gives its tasks."""
    folder, values, _ = alone
    slurm = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "eagle", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    command = [sys.executable, *arguments(folder, values, experiment_name="slurm", max_steps=2)]
    tasks = [
        subprocess.Popen(command, env=environment(**slurm, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)))
        for rank in range(WORLD)
    ]
    assert [task.wait(timeout=120) for task in tasks] == [0, 0]
    assert torch.load(folder / "outputs/slurm/last.ckpt", weights_only=True)["global_step"] == 2
