"""Cached keys in memory and on disk: contents, folder names, interrupted runs, full disks and full memory."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from eagle.config.validation import with_overrides
from eagle.data.datamodule import SegmentationDataModule
from eagle.errors import ConfigError
from eagle.models.key_cache import KeyCache
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training.caches import available_memory, open_caches
from eagle.training.run import train
from miniatures import picture, save, write_directory

ROW_BYTES = 4 * 4 * 144 * 2  # the keys of one image, in float16


@pytest.fixture
def setting(make_config, tmp_path):
    """A dataset of four images with its configuration and backbone."""
    write_directory(tmp_path)
    cfg = make_config(
        pytorch_data_dir=str(tmp_path), dir_dataset_name="mine", cache_dir=str(tmp_path / "cache"), res=32, val_res=32,
        cache_features="disk", batch_size=4, output_root=str(tmp_path / "runs"), max_steps=3, accelerator="cpu",
    )  # fmt: skip
    torch.manual_seed(0)
    segmenter = LitUnsupervisedSegmenter(3, cfg).eval()
    return cfg, segmenter, SegmentationDataModule(cfg)


def counted(backbone):
    passes = []
    backbone.register_forward_pre_hook(lambda _m, args: passes.append(len(args[0])))
    return passes


def cache_folders(cfg):
    return sorted(Path(cfg.cache_dir).iterdir())


def disk_cache(cfg, backbone, data):
    """The cache of clean training images."""
    return open_caches(cfg, backbone, data.train_set, data.val_set).clean


@pytest.fixture(params=["ram", "disk"])
def cache(request, setting):
    cfg, segmenter, data = setting
    backbone = segmenter.net.model
    return KeyCache(backbone) if request.param == "ram" else disk_cache(cfg, backbone, data)


def test_cache__gives_the_backbones_keys_and_asks_once(setting, cache):
    _, segmenter, data = setting
    batch = next(iter(data.train_dataloader()))
    img, index = batch["img"], batch["index"]
    expected, passes = segmenter.net.model(img), counted(segmenter.net.model)
    first, second = cache(img[:3], index[:3]), cache(img[[2, 3, 0]], index[[2, 3, 0]])
    assert passes == [3, 1]
    assert torch.allclose(first, expected[:3], atol=2e-3)
    assert torch.allclose(second, expected[[2, 3, 0]], atol=2e-3)


def test_disk_cache__an_interrupted_run_keeps_what_it_has(setting, monkeypatch):
    cfg, segmenter, data = setting
    batch = next(iter(data.train_dataloader()))
    img, index = batch["img"], batch["index"]
    backbone = segmenter.net.model
    expected = backbone(img)
    disk_cache(cfg, backbone, data)(img[:2], index[:2])

    def cut_off(file):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", cut_off)
        with pytest.raises(KeyboardInterrupt):
            disk_cache(cfg, backbone, data)(img[2:3], index[2:3])
    passes = counted(backbone)
    keys = disk_cache(cfg, backbone, data)(img, index)
    assert passes == [2], "the two rows that were not whole"
    assert torch.allclose(keys, expected, atol=2e-3)


@pytest.mark.parametrize("change", ["weights", "blocks", "res", "precision", "touched", "another image"])
def test_disk_cache__changed_inputs_of_the_keys_use_another_folder(setting, make_config, change):
    cfg, segmenter, data = setting
    disk_cache(cfg, segmenter.net.model, data)
    before = len(cache_folders(cfg))
    overrides = {"blocks": {"key_blocks": [0, 1]}, "res": {"res": 40}, "precision": {"precision": "bf16-mixed"}}
    changed = make_config(**{**cfg, **overrides.get(change, {})})
    other = LitUnsupervisedSegmenter(3, changed)
    if change != "weights":
        other.net.model.load_state_dict(segmenter.net.model.state_dict())
    path = data.train_set.image_path(1)
    if change == "touched":
        os.utime(path, ns=(1, 1))
    if change == "another image":
        save(path.with_name("9.jpg"), picture(9))
        shutil.copy(path.parents[2] / "labels/train/0.png", path.parents[2] / "labels/train/9.png")
    disk_cache(changed, other.net.model, SegmentationDataModule(changed))
    assert len(cache_folders(cfg)) > before


def test_disk_cache__other_keys_of_the_configuration_use_the_same_folder(setting):
    cfg, segmenter, data = setting
    for change in ({}, {"momentum_limit": 0.5}, {"dim": 16}, {"num_workers": 3}, {"max_steps": 9}, {"seed": 4}):
        disk_cache(with_overrides(cfg, **change), segmenter.net.model, data)
    assert len(cache_folders(cfg)) == 2, "training and validation images"


def test_disk_cache__a_name_that_is_not_utf_8(setting):
    cfg, segmenter, data = setting
    path = data.train_set.image_path(0)
    labels = path.parents[2] / "labels" / "train"
    path.rename(os.fsdecode(os.fsencode(path.parent) + b"/\xff.jpg"))
    (labels / "0.png").rename(os.fsdecode(os.fsencode(labels) + b"/\xff.png"))
    data = SegmentationDataModule(cfg)
    disk_cache(cfg, segmenter.net.model, data)
    assert cache_folders(cfg)
    assert data.state_dict()["n_images"] == 4


def test_disk_cache__a_full_disk_is_refused_before_training(setting, monkeypatch):
    cfg, _, _ = setting
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10, 9, 4 * 16 * 144 * 2 - 1))
    with pytest.raises(ConfigError, match="set cache_dir to another disk") as caught:
        train(cfg)
    assert "\n" not in str(caught.value)
    assert cache_folders(cfg) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10, 9, 4 * 16 * 144 * 2))
    train(cfg)


def test_memory_cache__too_many_keys_for_the_memory_are_refused_before_training(setting, monkeypatch):
    cfg = with_overrides(setting[0], cache_features="ram")
    monkeypatch.setattr("eagle.training.caches.available_memory", lambda: 7 * ROW_BYTES - 1)
    with pytest.raises(ConfigError, match="set cache_features=disk, or off"):
        train(cfg)


def test_available_memory__control_groups_may_leave_less(tmp_path, monkeypatch):
    (tmp_path / "own").write_text("4:memory:/x\n0::/job/step\n")
    for group, limit in {"job": "3000", "job/step": "2000"}.items():
        (tmp_path / "groups" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / group / "memory.max").write_text(limit + "\n")
    monkeypatch.setattr("eagle.training.caches.OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr("eagle.training.caches.GROUPS", tmp_path / "groups")
    assert available_memory() == 2000


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_cached_views__each_view_has_the_keys_of_its_own_pixels_and_disk_keeps_them_for_other_seeds(setting, kind):
    cfg, segmenter, data = setting
    cfg = with_overrides(cfg, cached_views=2, cache_features=kind)
    backbone = segmenter.net.model
    for seed in (0, 1):
        batches = SegmentationDataModule(with_overrides(cfg, seed=seed)).train_dataloader()
        segmenter.key_caches = open_caches(cfg, backbone, data.train_set, data.val_set)
        for batch, _ in zip(batches, range(12), strict=False):
            passes = counted(backbone)
            keys, keys_aug = segmenter._frozen_keys(batch)
            assert not (kind == "disk" and seed and passes)
            assert torch.allclose(keys, backbone(batch["img"]), atol=2e-3)
            assert torch.allclose(keys_aug, backbone(batch["img_aug"]), atol=2e-3)


def test_validation__scores_with_cached_keys_are_those_without(setting):
    cfg, segmenter, data = setting
    (batch,) = data.val_dataloader()
    segmenter.log = lambda *_args, **_kwargs: None
    plain = segmenter.validation_step(batch, 0)
    segmenter.key_caches = open_caches(cfg, segmenter.net.model, data.train_set, data.val_set)
    passes = counted(segmenter.net.model)
    for _ in range(2):
        cached = segmenter.validation_step(batch, 0)
        for name, ids in plain.items():
            assert (cached[name] == ids).float().mean() > 0.99
    assert passes == [3]
