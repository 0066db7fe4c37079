"""The CUDA path without CUDA: every part of a step on tensors of a fake GPU.

A test fails where tensors of different devices meet, and where the host reads a value, a mask or a copy from the device
that is not listed here. It cannot see:

- values: nothing is computed, so neither results nor branches on them; ``fake_gpu`` lists the assumed answers;
- what differs on CUDA itself: kernels for a dtype, determinism, memory, speed, streams, pinned copies;
- bfloat16: torch turns GPU autocast off without a GPU;
- a CPU scalar or CPU indices next to a device tensor: torch moves both by itself;
- the wait of a copy to the device; optimiser, logging, stored keys, several GPUs, compiled networks.

autograd asks CUDA for its streams, so a fake CUDA device has no backward pass. ``meta`` has one, and to our code it is
another device that is not the CPU.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from eagle.evaluation.evaluator import score_batch
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.maps.probe_maps import MapSettings
from eagle.segmenter import LitUnsupervisedSegmenter
from fake_gpu import Read, Watch, move_to_fake

N_CLASSES = 5

# torch's eigh checks on the host whether it converged.
FULL_DECOMPOSITION = Read("spectral/eigensolver:_by_eigh", "_linalg_eigh")
# The last of them decides which images need a full decomposition.
EIGENSOLVER_READS = {
    Read("spectral/eigensolver:_rayleigh_ritz", "_linalg_eigh"),
    Read("spectral/eigensolver:_eigenpairs", "_local_scalar_dense"),
    FULL_DECOMPOSITION,
}
# Scores count labelled pixels only, whose number is known on the device only.
SCORE_READS = {Read("evaluation/metrics:update", "index"), Read("evaluation/metrics:update", "bincount")}


@pytest.fixture(params=["cuda", "meta"])
def device(request, monkeypatch):
    # A GPU generator needs a GPU.
    monkeypatch.setattr(torch, "Generator", lambda _device=None, plain=torch.Generator: plain())
    if request.param == "meta":
        # torch has no autocast for meta.
        monkeypatch.setattr(torch, "autocast", lambda *_args, **_kwargs: nullcontext())
    return request.param


@pytest.fixture
def fake(make_config, device):
    """Builds a fake segmenter and a batch; ``changed`` is real, because the host reads it on the CPU."""

    def build(**overrides):
        mode = FakeTensorMode()
        segmenter = LitUnsupervisedSegmenter(N_CLASSES, make_config(**overrides))
        with mode:
            move_to_fake(segmenter, device)
            views = ("img", "img_aug")
            batch = {name: torch.randn(3, 3, 112, 112, device=device) for name in views}
            batch["label"] = torch.randint(-1, N_CLASSES, (3, 112, 112), device=device)
        return mode, segmenter, batch | {"changed": torch.tensor([False, True, False])}

    return build


CUDA = pytest.mark.parametrize("device", ["cuda"], indirect=True)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(
    ("device", "overrides", "reads"),
    [
        ("cuda", {}, EIGENSOLVER_READS),
        ("meta", {}, EIGENSOLVER_READS),
        (
            "meta",
            {"fidelity": "paper", "prototype_scope": "image", "centroid_mode": "mean", "label_smoothing": 0.1},
            EIGENSOLVER_READS,
        ),
        (
            "meta",
            {"centroid_mode": "learned", "gather_batch": True, "pointwise": False, "eigensolver": "eigh"},
            {FULL_DECOMPOSITION},
        ),
    ],
    indirect=["device"],
)
def test_training_step__stays_on_the_device(fake, device, overrides, reads):
    """Backbone, head, affinities, Laplacian, eigensolver, EiCue, ObjNCE, correspondence loss and both probes."""
    mode, segmenter, batch = fake(**overrides)
    with mode, Watch(reads) as watch:
        terms = segmenter.losses(batch, 500)
        assert {str(term.device.type) for term in terms.values()} == {device}
        if device == "meta":
            terms["loss/total"].backward()
            trained = [parameter for parameter in segmenter.parameters() if parameter.requires_grad]
            assert {parameter.grad.device.type for parameter in trained} == {device}
    assert watch.seen == reads


@pytest.mark.filterwarnings("ignore:.*CUDA is not available", "ignore:.*self.trainer")
@CUDA
def test_validation_step__stays_on_the_device(fake, device):
    mode, segmenter, batch = fake()
    with mode, Watch(SCORE_READS) as watch, torch.no_grad():
        maps = segmenter.eval().validation_step(batch, 0)
    assert {name: (tuple(ids.shape), ids.device.type) for name, ids in maps.items()} == {
        "linear": ((3, 112, 112), device), "cluster": ((3, 112, 112), device)
    }  # fmt: skip
    assert watch.seen == SCORE_READS


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@CUDA
def test_evaluation__stays_on_the_device_but_for_the_pictures(fake, device, monkeypatch):
    """Images of any size, both probes, flips, windows and scores; tests/maps/test_crf.py runs the CRF on a GPU."""
    shown, read = {7}, {Read("evaluation/evaluator:score_batch", "_to_copy")}
    mode, segmenter, _ = fake()
    settings = MapSettings(2.0, window=88)
    probes = segmenter.eval().probe_maps(settings)
    metrics = {name: UnsupervisedMetrics("", N_CLASSES, n - N_CLASSES, True) for name, n in probes.n_clusters.items()}
    monkeypatch.setattr(torch.Tensor, "numpy", lambda tensor: np.zeros(tensor.shape, np.int16))
    reads = SCORE_READS | read
    batch = {"index": [4, 7]}
    with mode, Watch(reads) as watch, torch.no_grad():
        move_to_fake(nn.ModuleDict(metrics), device)
        batch["img"] = torch.randn(2, 3, 61, 90, device=device)
        batch["label"] = torch.randint(-1, N_CLASSES, (2, 61, 90), device=device)
        images = list(score_batch(probes, metrics, batch, shown, ()))
    assert watch.seen == reads
    assert [image.index for image in images] == sorted(shown)
    for image in images:
        shapes = {name: image.ids(name).shape for name in image.packed}
        assert shapes == dict.fromkeys(["label", *metrics], (61, 90))
