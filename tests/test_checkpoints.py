"""Checkpoints as the published Lightning 1.x runs wrote them, and files that are none."""

import pytest
import torch
from omegaconf import OmegaConf

from conftest import TINY_VIT
from eagle.checkpoints import load_segmenter
from eagle.errors import CheckpointError
from eagle.segmenter import LitUnsupervisedSegmenter


def test_load_segmenter__published_form(make_config, tmp_path):
    """A pickled DictConfig with keys that steer nothing here, leftover tensors, and no backbone file at hand."""
    segmenter = LitUnsupervisedSegmenter(5, make_config()).eval()
    cfg = OmegaConf.create(
        {
            "model_type": "vit_small", "dino_patch_size": 8, "dim": 32, "pretrained_weights": None,
            "backbone_kwargs": TINY_VIT, "azureml_logging": True, "hist_freq": 100, "lr": 5e-4, "dropout": True,
        }
    )  # fmt: skip
    leftovers = {
        "train_cluster_probe.clusters": torch.zeros(5, 32),
        "decoder.weight": torch.zeros(144, 32, 1, 1),
        "CELoss.learned_centroids": torch.zeros(5, 32),
    }
    checkpoint = {
        "epoch": 3,
        "global_step": 70,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": segmenter.state_dict() | leftovers,
        "hyper_parameters": {"n_classes": 5, "cfg": cfg},
    }
    torch.save(checkpoint, tmp_path / "published.ckpt")
    loaded = load_segmenter(tmp_path / "published.ckpt")
    img = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.net.keys_and_code(img)[1], segmenter.net.keys_and_code(img)[1])
    assert loaded.cfg.dim == 32


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"PK\x03\x04 cut off", None])
def test_load_segmenter__unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "bad.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.ckpt: (not a readable|no such) checkpoint"):
        load_segmenter(path)


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def test_load_segmenter__malicious_pickle_runs_nothing(tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": Payload(tmp_path / "executed")}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"evil\.ckpt: not a readable checkpoint"):
        load_segmenter(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()
