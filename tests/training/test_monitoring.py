"""A run stops at the first non-finite loss or gradient, and saves that step's batch."""

import math
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from eagle.errors import TrainingError
from eagle.losses.object_nce import ObjectNCELoss
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training.callbacks import GRADIENT
from eagle.training.run import train


def test_train__the_saved_batch_is_the_faulty_one_though_values_come_late(make_run, monkeypatch):
    """The object loss of one step is nan; the file must hold that step's batch and loss terms."""
    plain, seen = LitUnsupervisedSegmenter.losses, []

    def spoiled(self, batch, step):
        terms = plain(self, batch, step)
        seen.append((batch["img"], float(terms["loss/pos_inter"].detach())))
        if step == 2:
            terms["loss/local_pos_aug_loss"] = terms["loss/total"] = terms["loss/total"] * math.nan
        return terms

    monkeypatch.setattr(LitUnsupervisedSegmenter, "losses", spoiled)
    cfg = make_run(max_steps=10, val_freq=100, checkpoint_freq=100)
    with pytest.raises(TrainingError, match="loss/local_pos_aug_loss became nan in step 2"):
        train(cfg)
    content = torch.load(Path(cfg.output_root) / "run" / "nan_batch.pt", weights_only=True)
    img, pos_inter = seen[2]
    assert torch.equal(content["batch"]["img"], img)
    assert content["terms"]["loss/pos_inter"] == pytest.approx(pos_inter, rel=1e-6)


def test_train__neither_the_last_step_nor_a_checkpoint_hides_a_nan(make_run, monkeypatch):
    plain = ObjectNCELoss.forward
    monkeypatch.setattr(ObjectNCELoss, "forward", lambda self, *args, **kw: plain(self, *args, **kw) * math.nan)
    for freq in (1, 100):
        cfg = make_run(max_steps=1, val_freq=100, checkpoint_freq=freq, experiment_name=f"every {freq}")
        with pytest.raises(TrainingError, match="loss/local_pos_loss became nan in step 0"):
            train(cfg)
        assert not list((ROOT / cfg.output_root).glob(f"every {freq}/*.ckpt"))


def test_train__non_finite_gradient_stops_the_run(make_run, monkeypatch):
    plain = LitUnsupervisedSegmenter.losses

    def steep(self, batch, step):
        terms = plain(self, batch, step)
        zero = self.project_head.bias.sum() * 0
        return terms | {"loss/total": terms["loss/total"] + zero.abs().sqrt()}

    monkeypatch.setattr(LitUnsupervisedSegmenter, "losses", steep)
    with pytest.raises(TrainingError, match=f"{GRADIENT} became nan in step 0"):
        train(make_run())
