"""A run stops at the first non-finite loss or gradient, and its batch can be replayed."""

import math

import pytest
import torch
from omegaconf import OmegaConf
from scripts.replay_batch import replay_batch

from conftest import ROOT
from eagle.errors import CheckpointError, TrainingError
from eagle.losses.object_nce import ObjectNCELoss
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training.callbacks.nonfinite import GRADIENT, HostCopy, NonFiniteStop
from eagle.training.replay import replay
from eagle.training.run import train


def same(a, b):
    return a == pytest.approx(b, rel=1e-6, nan_ok=True)


@pytest.fixture
def one_step_late(monkeypatch):
    """Values that are never there at once, as on a GPU."""
    monkeypatch.setattr(HostCopy, "arrived", lambda _self: False)


def test_train__infinite_learning_rate_stops_at_the_next_batch_which_replays_to_the_same_terms(make_run, capsys):
    with pytest.raises(TrainingError, match=r"loss/pos_inter became nan in batch 1 .*replay_batch\.py file=") as error:
        train(make_run(lr=math.inf, max_steps=10))
    path = ROOT / str(error.value).partition("file=")[2]
    content = torch.load(path, weights_only=True)
    assert content["step"] == 1
    result = replay(path)
    assert list(result.again) == list(result.recorded)
    assert all(same(result.again[name], value) for name, value in result.recorded.items())
    assert math.isnan(result.again["loss/pos_inter"])
    replay_batch(OmegaConf.create({"file": str(path)}))
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("loss/pos_inter"))
    assert row.split()[1:] == ["nan", "nan"]


@pytest.mark.parametrize("late", [False, True])
def test_train__the_saved_batch_is_the_bad_one_even_where_values_come_late(make_run, monkeypatch, request, late):
    """One batch's object loss is nan; the file must hold that batch, the weights before it and its random state."""
    if late:
        request.getfixturevalue("one_step_late")
    plain, seen = LitUnsupervisedSegmenter.losses, []

    def spoiled(self, batch, step):
        terms = plain(self, batch, step)
        seen.append(
            (batch["img"], self.net.cluster1[0].weight.detach().clone(), float(terms["loss/pos_inter"].detach()))
        )
        if step == 2:
            terms["loss/local_pos_aug_loss"] = terms["loss/total"] = terms["loss/total"] * math.nan
        return terms

    monkeypatch.setattr(LitUnsupervisedSegmenter, "losses", spoiled)
    with pytest.raises(TrainingError, match="loss/local_pos_aug_loss became nan in batch 2"):
        train(make_run(max_steps=10, val_freq=100, checkpoint_freq=100))
    assert len(seen) == (4 if late else 3)
    path = next(iter((ROOT / str(make_run().output_root)).glob("run/nan_batch.pt")))
    content = torch.load(path, weights_only=True)
    img, weight, pos_inter = seen[2]
    assert torch.equal(content["batch"]["img"], img)
    assert torch.equal(content["state_dict"]["net.cluster1.0.weight"], weight)
    monkeypatch.setattr(LitUnsupervisedSegmenter, "losses", plain)
    # Dropout, points and negatives are drawn again as they were.
    assert same(replay(path).again["loss/pos_inter"], pos_inter)


@pytest.mark.parametrize("late", [False, True])
def test_train__neither_the_last_step_nor_a_checkpoint_hides_a_nan(make_run, monkeypatch, request, late):
    if late:
        request.getfixturevalue("one_step_late")
    plain = ObjectNCELoss.forward
    monkeypatch.setattr(ObjectNCELoss, "forward", lambda self, *args, **kw: plain(self, *args, **kw) * math.nan)
    for freq in (1, 100):
        cfg = make_run(max_steps=1, val_freq=100, checkpoint_freq=freq, experiment_name=f"every {freq}")
        with pytest.raises(TrainingError, match="loss/local_pos_loss became nan in batch 0"):
            train(cfg)
        assert not list((ROOT / cfg.output_root).glob(f"every {freq}/*.ckpt"))


def test_train__a_gradient_that_is_not_finite_stops_too(make_run, monkeypatch):
    plain = LitUnsupervisedSegmenter.losses

    def steep(self, batch, step):
        terms = plain(self, batch, step)
        zero = self.project_head.bias.sum() * 0
        return terms | {"loss/total": terms["loss/total"] + zero.abs().sqrt()}

    monkeypatch.setattr(LitUnsupervisedSegmenter, "losses", steep)
    with pytest.raises(TrainingError, match=f"{GRADIENT} became nan in batch 0"):
        train(make_run())


def test_replay__another_file_is_refused_in_one_line(make_run, tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: holds no batch"):
        replay(tmp_path / "other.pt")


def test_nonfinite_stop__does_not_move_the_random_state(make_run):
    """The same run with and without the callback ends in the same weights."""
    with_stop = torch.load(train(make_run(experiment_name="with")) / "last.ckpt", weights_only=True)["state_dict"]
    with pytest.MonkeyPatch.context() as patch:
        for hook in ("on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step"):
            patch.setattr(NonFiniteStop, hook, lambda *_args: None)
        without = torch.load(train(make_run(experiment_name="without")) / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(with_stop[name], without[name]) for name in without)
