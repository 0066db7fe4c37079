import csv

import pytest
import torch
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from eagle.training.callbacks.progress import BAR_FORMAT, RunProgressBar, postfix, shown_terms
from eagle.training.run import train

TERMS = {
    "loss/total": -1.2345, "loss/pos_inter": -0.0712, "loss/neg_inter": 0.2271, "loss/local_pos_loss": 0.1,
    "loss/local_pos_aug_loss": 0.3, "loss/cluster_eigen_loss": -0.3149, "loss/linear": 1.4, "loss/cluster": -0.2,
    "cd/update_params": 0.9,
}  # fmt: skip


def tensors(device="cpu", **overrides):
    return {name: torch.tensor(value, device=device) for name, value in (TERMS | overrides).items()}


def test_shown_terms__short_names_the_object_terms_mean_and_lambda_once_it_is_on():
    shown = shown_terms(tensors())
    assert shown == pytest.approx(
        {"loss": -1.2345, "pos": -0.0712, "neg": 0.2271, "nce": 0.2, "eig": -0.3149, "λ": 0.9}
    )
    assert "λ" not in shown_terms(tensors(**{"cd/update_params": 0.0}))


def test_postfix__loss_and_scores_first():
    words = postfix(shown_terms(tensors()), {"mIoU": 21.583, "acc": 48.6})
    assert words == "loss -1.23 mIoU 21.6 acc 48.6 pos -0.071 neg 0.227 nce 0.200 eig -0.315 λ 0.9"


def test_bar__of_a_long_run_fits_120_columns():
    words = postfix(shown_terms(tensors()), {"mIoU": 21.6, "acc": 48.6})
    almost_ten_hours = 35_999
    line = Tqdm.format_meter(
        5000, 10_000, almost_ten_hours, ncols=119, unit="", bar_format=BAR_FORMAT, postfix=words, rate=5000 / 35_999
    )
    assert line.startswith("5000/10000 |")
    assert "9:59:59<9:59:59" in line
    assert line.endswith("λ 0.9"), "nothing is cut off"
    assert len(line) <= 119


class Bar(RunProgressBar):
    """A bar of a run of 12 batches that no trainer drives."""

    total_train_batches = 12


def test_bar__asks_the_device_for_values_when_it_is_shown_only():
    bar = Bar(refresh_rate=5)
    bar.train_progress_bar = Tqdm(total=12, file=None)
    trainer = type("Trainer", (), {})()
    unreadable = {"terms": tensors("meta")}  # to read these raises
    for trainer.global_step in (1, 2, 3, 4, 6, 11):
        bar.on_train_batch_end(trainer, None, unreadable, None, 0)
    for trainer.global_step in (5, 12):
        with pytest.raises(RuntimeError, match="meta"):
            bar.on_train_batch_end(trainer, None, unreadable, None, 0)


@pytest.fixture
def shown(monkeypatch):
    """What the training bar showed, as (batches, words)."""
    seen = []
    monkeypatch.setattr(Tqdm, "set_postfix_str", lambda self, words, *_: seen.append((self.n, words)))
    return seen


def test_train__bar_shows_what_the_csv_logs(make_run, shown, monkeypatch):
    lightnings = []
    original = RunProgressBar.on_train_batch_end

    def watched(self, trainer, *args):
        lightnings.append(dict(trainer.progress_bar_metrics))
        original(self, trainer, *args)

    monkeypatch.setattr(RunProgressBar, "on_train_batch_end", watched)
    run_dir = train(make_run(max_steps=4, step_schedulers=1))
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    totals = [float(row["loss/total"]) for row in rows if row["loss/total"]]
    scores = [row for row in rows if row["test/cluster/mIoU"]]
    for batches, words in shown:
        numbers = dict(zip(words.split()[::2], words.split()[1::2], strict=True))
        assert float(numbers["loss"]) == pytest.approx(totals[batches - 1], abs=6e-3)
        assert ("λ" in numbers) == (batches > 2)
    assert [batches for batches, _ in shown][-1] == 4
    last = float(scores[-1]["test/cluster/mIoU"])
    assert f"mIoU {last:.1f}" in shown[-1][1]
    assert "mIoU" not in shown[0][1], "not validated yet"
    assert lightnings == [{}] * 4, "Lightning would fetch values of its own in every batch"


def test_train__resumed_bar_goes_on(make_run, shown):
    train(make_run(max_steps=2, n_images=0))
    before = len(shown)
    train(make_run(max_steps=4, ckpt_path="last"))
    assert {batches for batches, _ in shown[before:]} == {3, 4}
