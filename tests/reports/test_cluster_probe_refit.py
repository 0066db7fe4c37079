"""scripts/refit_cluster_probe.py: new centres in a new file, everything else as it was."""

import pytest
import torch
from scripts.refit_cluster_probe import RefitConfig, refit_cluster_probe

from conftest import run_values
from eagle.checkpoints import load_segmenter
from eagle.checkpoints.formats import read_stored
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import validated
from eagle.errors import CheckpointError
from eagle.reports.checkpoint_evaluation import evaluate_checkpoint
from eagle.training.run import train
from miniatures import write_halves


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run with online centres and its evaluation."""
    folder = tmp_path_factory.mktemp("refit")
    write_halves(folder / "data" / "halves", n=6)
    run_dir = train(validated(TrainConfig, run_values(folder)))
    evaluation = {"run_crf": False, "report": False, "num_workers": 0, "accelerator": "cpu"}
    evaluate_checkpoint(run_dir / "last.ckpt", validated(EvalConfig, evaluation))
    return run_dir


def refit(checkpoint, output):
    values = {"checkpoint": str(checkpoint), "output": str(output), "num_workers": 0, "accelerator": "cpu"}
    refit_cluster_probe(validated(RefitConfig, values))


@pytest.mark.parametrize("name", ["refitted.ckpt", "refitted.safetensors"])
def test_refit__replaces_the_cluster_probe_alone(run_dir, tmp_path, name):
    source = run_dir / "last.ckpt"
    before = source.read_bytes()
    refit(source, tmp_path / name)
    assert source.read_bytes() == before
    original, refitted = load_segmenter(source), load_segmenter(tmp_path / name)
    assert refitted.cfg == original.cfg
    for key, tensor in refitted.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[key]) == (key != "cluster_probe.clusters"), key
    assert list(read_stored(tmp_path / name).class_map.assignments) == ["linear"], "the old matching is gone"


def test_refit__lowers_the_distance_of_codes_to_their_centres(run_dir, tmp_path):
    refit(run_dir / "last.ckpt", tmp_path / "new.ckpt")
    img = torch.randn(4, 3, 32, 32)
    losses = [
        float(segmenter.cluster_probe(segmenter(img), None)[0].detach())
        for segmenter in map(load_segmenter, (run_dir / "last.ckpt", tmp_path / "new.ckpt"))
    ]
    assert losses[1] < losses[0]


def test_refit__never_overwrites_its_input(run_dir, tmp_path):
    source = run_dir / "last.ckpt"
    (tmp_path / "link.ckpt").symlink_to(source)
    for output in (source, tmp_path / "link.ckpt"):
        with pytest.raises(CheckpointError, match="is the checkpoint to read; give another name"):
            refit(source, output)


def test_refit__other_suffixes_are_refused_first(run_dir, tmp_path):
    with pytest.raises(CheckpointError, match=r"new.pth: a checkpoint's name ends in .ckpt or .safetensors"):
        refit(run_dir / "last.ckpt", tmp_path / "new.pth")
    assert not list(tmp_path.iterdir())
