"""Fixtures shared by all tests: the golden values and a model small enough for a CPU second."""

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import settings
from omegaconf import DictConfig
from safetensors import safe_open
from safetensors.torch import load_file

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from miniatures import write_halves

# The same examples every time, and no clock: other work on the machine fails no test.
settings.register_profile("eagle", max_examples=20, deadline=None, derandomize=True)
settings.load_profile("eagle")

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
# Real images and weights, which are too large for the repository; tests that need them are skipped without.
SHARED = Path(os.environ.get("EAGLE_SHARED", ROOT.parent / "shared"))
# Files with the longest tests, which come first, so that no process is left with one of them at the end.
LONG = ("test_notebook.py", "test_quickstart.py", "test_resume.py", "test_dataset_flows.py", "test_distributed.py")
TINY_VIT = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 112}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first. Skip the tests marked ``gpu`` where there is none; scripts/gpu_check.sh runs them."""
    items.sort(key=lambda item: item.path.name not in LONG)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _no_orphans():
    """What tests start and kill leaves no process: none without its parent is there ten seconds after the last test."""
    mark = os.environ["EAGLE_TEST_SESSION"] = uuid.uuid4().hex

    def marked(process: psutil.Process) -> bool:
        with suppress(psutil.Error):  # of another user, or ended
            return process.environ().get("EAGLE_TEST_SESSION") == mark
        return False

    yield
    ours = psutil.Process().children(recursive=True)
    left = [process for process in filter(marked, psutil.process_iter()) if process not in ours]
    _, left = psutil.wait_procs(left, timeout=10)
    for process in left:
        process.kill()
    assert not left, f"these processes outlived the tests that started them: {left}"


class Golden:
    """Reads the files of ``tests/golden``, which its README.md describes."""

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.path(f"{name}.safetensors"))

    def metadata(self, name: str) -> dict[str, str]:
        with safe_open(self.path(f"{name}.safetensors"), "pt") as file:
            return file.metadata()

    def path(self, name: str) -> Path:
        return GOLDEN / name


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden()


@pytest.fixture
def make_config():
    """A TrainConfig of the tiny ViT with random weights; keyword arguments override its keys."""

    def make(**overrides: Any) -> DictConfig:
        values = {"pretrained_weights": "random", "backbone_kwargs": TINY_VIT, "dim": 32, "num_workers": 0}
        return validated(TrainConfig, values | overrides)

    return make


@pytest.fixture
def golden_segmenter(golden, make_config):
    """Builds the segmenter of the recorded steps, with the weights before the first one, for a dataset's settings."""

    def make(which: str) -> Any:
        from eagle.segmenter import LitUnsupervisedSegmenter  # takes seconds, which most files do not need

        meta = golden.metadata(f"i_state_{which}")
        weights = {"pos_inter_weight", "neg_inter_weight", "correspondence_weight", "shift_bias", "shift_value"}
        values = {k: int(v) if v.isdigit() and k not in weights else float(v) for k, v in meta.items() if k != "note"}
        cfg = make_config(dataset_name=which if which == "cityscapes" else "cocostuff27", **values)
        segmenter = LitUnsupervisedSegmenter(27, cfg)
        backbone = {f"net.model.{k}": v for k, v in golden.tensors("vit_golden_state").items()}
        # Strict: unused tensors of released checkpoints are dropped, all others must be present.
        segmenter.load_state_dict(golden.tensors(f"i_state_{which}") | backbone)
        return segmenter

    return make


@pytest.fixture
def golden_batch(golden):
    """The batch of the recorded steps."""
    data = golden.tensors("i_batch")
    return {"img": data["img"], "img_aug": data["img_pos_aug"], "label": data["label"]}


def recorded(data: dict[str, torch.Tensor], prefix: str = "") -> dict[str, Any]:
    """Coordinates, permutations and eigenvectors of one recorded step."""
    coords = torch.stack([data[f"{prefix}coords{i}"] for i in (1, 2, 3)])
    vectors = (data[f"{prefix}eigenvectors_pos"], data[f"{prefix}eigenvectors_pos_aug"])
    return {"coords": coords, "perms": data[f"{prefix}perms"], "eigenvectors": vectors}


def run_values(folder: Path) -> dict[str, Any]:
    """The keys of a three-batch run on ``folder/data/halves``."""
    return {
        "dataset_name": "directory", "pytorch_data_dir": str(folder / "data"), "dir_dataset_name": "halves",
        "dir_dataset_n_classes": 2, "res": 32, "val_res": 32, "batch_size": 2, "num_workers": 0,
        "pretrained_weights": "random", "backbone_kwargs": TINY_VIT, "dim": 32, "extra_clusters": 1,
        "max_steps": 3, "val_freq": 2, "checkpoint_freq": 2, "scalar_log_freq": 1, "n_images": 0,
        "output_root": str(folder / "outputs"), "experiment_name": "run", "accelerator": "cpu",
    }  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a finished three-batch run, which all tests share and none changes."""
    from eagle.training.run import train  # takes seconds, which most files do not need

    folder = tmp_path_factory.mktemp("trained")
    write_halves(folder / "data" / "halves")
    return train(validated(TrainConfig, run_values(folder)))


@pytest.fixture
def run_dir(trained, tmp_path):
    """A copy of that folder to write into; its checkpoints name the shared dataset."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def make_run(tmp_path):
    """Writes a dataset and gives a configuration of a three-batch run on it."""

    def make(labels=True, **overrides):
        if not (tmp_path / "data" / "halves").exists():
            write_halves(tmp_path / "data" / "halves", labels)
        return validated(TrainConfig, run_values(tmp_path) | overrides)

    return make
