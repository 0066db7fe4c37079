"""Training learns what k-means on the same keys does not see, by a margin that a broken run misses.

The repository holds no pretrained backbone, so the mosaics' keys are made up: a direction for each class, plus a style
that all patches of an image share and that outweighs the class. k-means groups images by style. The correspondence loss
can find the classes, because centring takes out what the patches of an image have in common; its positive pairs, which
lie within one image, would teach the style and are switched off.
"""

import csv

import numpy as np
import pytest
import torch
from scripts.make_mosaics import MOSAIC_CLASSES, write_mosaics
from torch import nn
from torch.nn import functional as F

from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import validated
from eagle.data.datasets.catalog import open_dataset
from eagle.data.views import EvaluationViews
from eagle.training.run import train

SIDE, PATCH = 64, 8
N_KEYS, CLASS_CHANNELS = 48, 16
STYLE, NOISE = 1.5, 0.3
N_STEPS = 400
# Least lead over k-means of runs with eight seeds: 43 points (linear) and 26 (cluster). Greatest of three seeds with a
# frozen head: 36 and 2; with a hundred times the learning rate, the cluster probe's: 17.
LINEAR_LEAD, CLUSTER_LEAD = 40, 21


class StoredKeys(nn.Module):
    """A backbone that gives the stored keys of the stored image most like its own.

    Args:
        images: N×3×H×W.
        keys: N×C×h×w.
    """

    patch_size, n_feats, embed_dim, key_blocks, stored_size = PATCH, N_KEYS, N_KEYS, (0,), (SIDE, SIDE)

    def __init__(self, images, keys):
        super().__init__()
        self.normalization = nn.Identity()
        self.register_buffer("_patches", self._patch_means(images), persistent=False)
        self.register_buffer("_keys", keys, persistent=False)

    @staticmethod
    def _patch_means(images):
        """Unlike pixels, about the same after a blur."""
        return F.avg_pool2d(images, PATCH).flatten(1)

    def forward(self, img):
        return self._keys[torch.cdist(self._patch_means(img), self._patches).argmin(dim=1)]


def made_up_keys(labels, generator):
    """N×C×h×w keys of N×H×W labels."""
    basis = torch.linalg.qr(torch.randn(N_KEYS, N_KEYS, generator=generator))[0]
    directions = F.normalize(torch.randn(len(MOSAIC_CLASSES), CLASS_CHANNELS, generator=generator), dim=1)
    styles = F.normalize(torch.randn(len(labels), CLASS_CHANNELS, generator=generator), dim=1)
    shares = F.avg_pool2d(F.one_hot(labels).permute(0, 3, 1, 2).float(), PATCH)
    classes = torch.einsum("bnhw,nc->bchw", shares, directions @ basis[:CLASS_CHANNELS])
    style = (styles @ basis[CLASS_CHANNELS : 2 * CLASS_CHANNELS])[:, :, None, None]
    noise = torch.randn(classes.shape, generator=generator) / N_KEYS**0.5
    return classes + STYLE * style + NOISE * noise


def stored_keys(cfg):
    """The backbone of all mosaics and their mirror images."""
    views = [view for split in ("train", "val") for view in EvaluationViews(open_dataset(cfg, split), SIDE)]
    images, labels = (torch.stack([view[name] for view in views]) for name in ("img", "label"))
    keys = made_up_keys(labels, torch.Generator().manual_seed(0))
    return StoredKeys(torch.cat([images, images.flip(3)]), torch.cat([keys, keys.flip(3)]))


def learn(folder, monkeypatch, **overrides):
    """Train on small mosaics and score the run beside k-means.

    Returns:
        mIoU by name (kmeans, linear, cluster), and every logged loss by name.
    """
    write_mosaics(folder / "data" / "mosaics", n_train=48, n_val=16, size=SIDE, seed=0)
    values = {
        "dataset_name": "directory", "pytorch_data_dir": str(folder / "data"), "dir_dataset_name": "mosaics",
        "res": SIDE, "val_res": SIDE, "batch_size": 8, "dim": 64, "num_workers": 0, "cache_features": "ram",
        "pos_inter_weight": 0.0, "shift_value": 0.5, "feature_samples": 8,
        "eigen_cluster_out": 64, "extra_clusters": 0,
        "max_steps": N_STEPS, "step_schedulers": 200, "momentum_limit": 0.3,
        "lr": 1e-3, "lr_linear": 2e-3, "lr_cluster": 0.2, "seed": 0, "scalar_log_freq": 1, "val_freq": N_STEPS,
        "checkpoint_freq": N_STEPS, "n_images": 0, "output_root": str(folder), "experiment_name": "run",
        "accelerator": "cpu",
    }  # fmt: skip
    cfg = validated(TrainConfig, values | overrides)
    backbone = stored_keys(cfg)
    monkeypatch.setattr("eagle.segmenter.build_backbone", lambda *_, **__: backbone)
    run_dir = train(cfg)
    evaluation = {"run_crf": False, "report": False, "n_images": 0, "num_workers": 0, "accelerator": "cpu"}
    content = evaluate_checkpoint(run_dir / "last.ckpt", validated(EvalConfig, {**evaluation, "kmeans": True}))
    maps = {"kmeans": content["kmeans"]["cluster"], **content["scores"]}
    rows = list(csv.DictReader((run_dir / "metrics.csv").open()))
    logged = {name: [float(row[name]) for row in rows if row[name]] for name in rows[0] if name.startswith("loss/")}
    return {name: scores["published"]["mIoU"] for name, scores in maps.items()}, logged


def fall(values):
    """How much the mean of the last 20 steps lies below that of the first 20."""
    return float(np.mean(values[:20]) - np.mean(values[-20:]))


@pytest.mark.slow
def test_training__learns_what_kmeans_does_not_see(tmp_path, monkeypatch):
    miou, logged = learn(tmp_path, monkeypatch)
    leads = {name: miou[name] - miou["kmeans"] for name in ("linear", "cluster")}
    assert leads["cluster"] > CLUSTER_LEAD, (miou, leads)
    assert leads["linear"] > LINEAR_LEAD, (miou, leads)
    # The probes' losses fall without a trained head too; the other terms do not.
    assert fall(logged["loss/total"]) > 1.6
    assert fall(logged["loss/neg_inter"]) > 0.02
    assert fall(logged["loss/local_pos_loss"]) > 0.06
    assert fall(logged["loss/local_pos_aug_loss"]) > 0.06
