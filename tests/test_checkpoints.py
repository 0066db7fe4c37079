"""Checkpoints in the released format, slim ones, and files that are not checkpoints."""

import json

import numpy as np
import pytest
import torch
import yaml
from omegaconf import AnyNode, OmegaConf
from PIL import Image
from torch.nn import functional as F

from conftest import TINY_VIT
from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.checkpoints import convert, load_segmenter, probe_entry, read_stored
from eagle.config.schema import DatasetConfig, EvalConfig
from eagle.config.validation import validated
from eagle.data.datasets.cocostuff import CocoStuff
from eagle.errors import CheckpointError
from eagle.segmenter import LitUnsupervisedSegmenter
from miniatures import write_cocostuff
from published import PICKLED_CONFIGS, published_tensors, write_published

RECORDED = {"pytorch-lightning_version": "1.4.9", "global_step": 70, "epoch": 3}
RELEASED = [name for name in PICKLED_CONFIGS if "vits8" in name or "2.0.6" in name]


@pytest.mark.parametrize(
    "config",
    [pytest.param(name, marks=[pytest.mark.slow] * ("vitb8" in name)) for name in RELEASED],
)
def test_load_segmenter__released_checkpoints_of_every_omegaconf(golden, tmp_path, config):
    """Loads tensors and configuration, ignores leftovers, and needs neither a backbone file nor a network."""
    tensors = published_tensors(golden.path(f"state_dict_keys_{config.split(',')[0]}.json"))
    loaded = load_segmenter(write_published(tmp_path / "published.ckpt", tensors, PICKLED_CONFIGS[config]))
    state = loaded.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in state.items())
    unused = {name.split(".")[0] for name in tensors.keys() - state.keys()}
    assert unused == {"train_cluster_probe", "decoder", "CELoss"}
    assert (loaded.cfg.dim, loaded.cfg.dino_patch_size, loaded.n_classes) == (512, 8, 27)
    assert loaded.cfg.extra_clusters == (1 if "vitb8" in config else 5)
    assert loaded.training_record == RECORDED


def plain_coco_evaluation(segmenter, dataset, res):
    """Method §9 as a plain loop: accuracy of the linear probe, confusion of the cluster probe."""
    right = labelled = 0
    confusion = np.zeros((len(segmenter.cluster_probe.clusters), 27), dtype=int)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for index in range(len(dataset)):
        image, label = dataset.image(index), dataset.label(index)
        scale = res / min(image.size)
        size = tuple(res if side == min(image.size) else int(side * scale) for side in image.size)
        left, top = round((size[0] - res) / 2), round((size[1] - res) / 2)
        pixels = np.asarray(image.resize(size, Image.Resampling.NEAREST))[top : top + res, left : left + res]
        ids = np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))[top:, left:][:res, :res]
        img = ((torch.from_numpy(pixels.copy()).float() / 255 - mean) / std).permute(2, 0, 1)[None]
        with torch.no_grad():
            code = segmenter(img)
            code = (code + segmenter(img.flip(3)).flip(3)) / 2
            code = F.interpolate(code, (res, res), mode="bilinear", align_corners=False)
            linear = segmenter.linear_probe(code).argmax(1)[0].numpy()
            cluster = segmenter.cluster_probe(code, 4.0, log_probs=True)[1].argmax(1)[0].numpy()
        valid = (ids >= 0) & (ids < 27)
        right += int((linear == ids)[valid].sum())
        labelled += int(valid.sum())
        np.add.at(confusion, (cluster[valid], ids[valid]), 1)
    return 100 * right / labelled, confusion


def test_evaluate__released_checkpoint_equals_a_plain_loop(golden, tmp_path, monkeypatch):
    """``python eval_segmentation.py model_paths=[…]`` with the datasets in their default folder."""
    from scipy.optimize import linear_sum_assignment

    tensors = published_tensors(golden.path("state_dict_keys_cocostuff_vits8.json"), seed=1)
    path = write_published(tmp_path / "released.ckpt", tensors, PICKLED_CONFIGS["cocostuff_vits8, OmegaConf 2.0.6"])
    write_cocostuff(tmp_path / "datasets", n=3)
    monkeypatch.setattr(DatasetConfig, "pytorch_data_dir", str(tmp_path / "datasets"))
    cfg = validated(EvalConfig, {"res": 48, "run_crf": False, "num_workers": 0, "accelerator": "cpu", "batch_size": 2})
    scores = evaluate_checkpoint(path, cfg)["scores"]
    linear, confusion = plain_coco_evaluation(
        load_segmenter(path), CocoStuff(tmp_path / "datasets/cocostuff", "val", "cocostuff27"), 48
    )
    assert scores["linear"]["published"]["accuracy"] == pytest.approx(linear, abs=0.05)
    rows, columns = linear_sum_assignment(confusion[:27], maximize=True)
    matched = confusion[:27][rows, columns]
    assert scores["cluster"]["strict"]["accuracy"] == pytest.approx(100 * matched.sum() / confusion.sum(), abs=0.05)
    by_class = dict(zip(columns.tolist(), range(27), strict=True))
    for class_id, iou in enumerate(scores["cluster"]["published"]["IoU"].values()):
        row = by_class[class_id]
        union = confusion[row].sum() + confusion[:27, class_id].sum() - confusion[row, class_id]
        expected = pytest.approx(100 * confusion[row, class_id] / union, abs=0.1) if union else None
        assert iou == expected


def tiny_checkpoint(make_config, path, **overrides):
    segmenter = LitUnsupervisedSegmenter(5, make_config(**overrides)).eval()
    hyper_parameters = dict(segmenter.hparams)
    torch.save({"state_dict": segmenter.state_dict(), "hyper_parameters": hyper_parameters, **RECORDED}, path)
    return segmenter


def test_convert__slim_and_back_keep_every_tensor_the_class_map_and_what_lightning_recorded(make_config, tmp_path):
    segmenter = tiny_checkpoint(make_config, tmp_path / "run.ckpt")
    class_map = {
        "classes": [{"name": f"class {i}", "color": [i, 2 * i, 255]} for i in range(5)],
        "assignments": {"linear": [0, 1, 2, 3, 4], "cluster": [3, 2, 1, 0, 4, -1, -1, -1, -1, -1]},
    }
    evaluation = {"class_map": class_map, **probe_entry(segmenter.state_dict())}
    (tmp_path / "run_eval.json").write_text(json.dumps(evaluation))
    convert(tmp_path / "run.ckpt", tmp_path / "slim.safetensors")
    convert(tmp_path / "slim.safetensors", tmp_path / "back.ckpt")
    original = load_segmenter(tmp_path / "run.ckpt")
    (tmp_path / "file").touch()
    for name in ("slim.safetensors", "back.ckpt"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "file").stat().st_mode, "as the umask says"
        loaded = load_segmenter(tmp_path / name)
        assert loaded.cfg == original.cfg
        assert loaded.training_record == RECORDED
        assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in original.state_dict().items())
    assert json.loads((tmp_path / "back_eval.json").read_text())["class_map"] == class_map
    assert read_stored(tmp_path / "back.ckpt").class_map.to_plain() == class_map


@pytest.mark.parametrize("name", ["run.ckpt", "run.safetensors"])
def test_convert__never_replaces_its_source(make_config, tmp_path, name):
    """The optimiser's state would be lost."""
    tiny_checkpoint(make_config, tmp_path / "run.ckpt")
    convert(tmp_path / "run.ckpt", tmp_path / "run.safetensors")
    (tmp_path / "link").symlink_to(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("run.*")}
    with pytest.raises(CheckpointError, match="is the source"):
        convert(tmp_path / name, tmp_path / "link" / name)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("run.*")} == before


@pytest.mark.parametrize("text", ["[" * 5000, "\udcff"])
def test_read_stored__damaged_text_beside_a_checkpoint(make_config, tmp_path, text):
    tiny_checkpoint(make_config, tmp_path / "run.ckpt")
    convert(tmp_path / "run.ckpt", tmp_path / "slim.safetensors")
    for name in ("run_eval.json", "slim.yml"):
        (tmp_path / name).write_text(text, errors="surrogateescape")
    assert read_stored(tmp_path / "run.ckpt").class_map is None
    with pytest.raises(CheckpointError, match=r"slim\.safetensors: it or slim\.yml is not readable"):
        read_stored(tmp_path / "slim.safetensors")


def test_read_stored__evaluation_of_another_checkpoint_is_ignored(run_dir, caplog):
    """After more training under the same file name, the old matching no longer applies."""
    path = run_dir / "best.ckpt"
    evaluate_checkpoint(path, validated(EvalConfig, {"run_crf": False, "num_workers": 0, "accelerator": "cpu"}))
    assert read_stored(path).class_map is not None
    assert "evaluate" not in caplog.text
    content = torch.load(path, weights_only=True)
    content["state_dict"]["cluster_probe.clusters"] += 0.1
    torch.save(content, path)
    assert read_stored(path).class_map is None
    assert "best_eval.json: ignored with its class names (made with another checkpoint)" in caplog.text
    (path.parent / "best_eval.json").write_text('{"class_map": "text"}')
    caplog.clear()
    assert read_stored(path).class_map is None
    assert len(caplog.records) == 1, "one warning of a damaged one"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (dict, {"experiment_name": "${oc.env:EAGLE_TEST_SECRET}"}),
        (dict, {"backbone_kwargs": TINY_VIT | {"class_token": ["a", "b ${oc.env:EAGLE_TEST_SECRET}"]}}),
        (OmegaConf.create, {"output_root": AnyNode("${oc.env:EAGLE_TEST_SECRET}")}),
        ("slim", {"experiment_name": "${oc.env:EAGLE_TEST_SECRET}"}),
    ],
)
def test_load_segmenter__a_checkpoint_cannot_read_this_machine(make_config, tmp_path, monkeypatch, kind, value):
    """A resolved interpolation would appear in converted YAML and reports."""
    monkeypatch.setenv("EAGLE_TEST_SECRET", "7")
    path = tmp_path / "run.ckpt"
    tiny_checkpoint(make_config, path)
    if kind == "slim":
        convert(path, tmp_path / "run.safetensors")
        path = tmp_path / "run.safetensors"
        description = yaml.safe_load(path.with_suffix(".yml").read_text())
        description["cfg"] |= OmegaConf.to_container(OmegaConf.create(value))
        path.with_suffix(".yml").write_text(yaml.safe_dump(description))
    else:
        content = torch.load(path, weights_only=True)
        content["hyper_parameters"]["cfg"] = kind(content["hyper_parameters"]["cfg"] | value)
        torch.save(content, path)
    for use in (load_segmenter, lambda source: convert(source, tmp_path / "out.safetensors")):
        with pytest.raises(CheckpointError, match=rf"{path.name}: its {next(iter(value))} is .*may interpolate$"):
            use(path)
    assert not (tmp_path / "out.yml").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad\.ckpt: not a readable checkpoint"),
        (b"\n<!DOCTYPE html><title>Quota exceeded</title>", r"bad\.ckpt: is a web page"),
        (b"PK\x03\x04 cut off", r"bad\.ckpt: not a readable checkpoint"),
        (None, r"bad\.ckpt: no such checkpoint"),
    ],
)
def test_load_segmenter__unreadable_files_are_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "bad.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_segmenter(path)
    assert "\n" not in str(caught.value)


def test_load_segmenter__wrong_architecture_names_the_tensors(make_config, tmp_path):
    tiny_checkpoint(make_config, tmp_path / "wide.ckpt")
    content = torch.load(tmp_path / "wide.ckpt", weights_only=True)
    content["hyper_parameters"]["cfg"]["backbone_kwargs"] = TINY_VIT | {"embed_dim": 96, "depth": 3}
    torch.save(content, tmp_path / "wide.ckpt")
    with pytest.raises(CheckpointError, match=r"has an unknown net\.model\.blocks\.3\.attn\.proj\.bias") as caught:
        load_segmenter(tmp_path / "wide.ckpt")
    assert "\n" not in str(caught.value)


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("old_format", [False, True])
def test_load_segmenter__malicious_pickle_runs_nothing(tmp_path, old_format):
    content = {"state_dict": {}, "hyper_parameters": Payload(tmp_path / "executed")}
    torch.save(content, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(CheckpointError, match=r"evil\.ckpt: not a readable checkpoint \(.*posix\.system") as caught:
        load_segmenter(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()
    assert "\n" not in str(caught.value)


def test_load_segmenter__callbacks_of_old_lightning_are_not_called(tmp_path):
    """A pickle that calls an allowed name gets a stand-in, which accepts no arguments."""

    class Called:
        def __reduce__(self):
            from pytorch_lightning.callbacks import ModelCheckpoint

            return ModelCheckpoint, (str(tmp_path / "made"),)

    torch.save({"state_dict": {}, "hyper_parameters": {}, "callbacks": Called()}, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError):
        load_segmenter(tmp_path / "odd.ckpt")
    assert not (tmp_path / "made").exists()
