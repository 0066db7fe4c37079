"""Folders of images: what a rerun skips, what a kill costs, how much waits in memory."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from conftest import ROOT, TINY_VIT
from eagle import LitUnsupervisedSegmenter
from eagle.checkpoints import StoredSegmenter, write_stored
from eagle.commands.photographs import SegmentConfig, segment_images
from eagle.config.validation import plain, validated
from eagle.errors import ConfigError, DataError, EagleError
from eagle.files import LOCK_NAME
from eagle.inference.folders import LOG_NAME, segment
from eagle.inference.photograph import PhotographSegmenter, ordered
from eagle.inference.segmentation import Segmentation
from miniatures import picture, save
from test_files import held

SIZES = ((48, 40), (40, 48), (64, 40))


def write_checkpoint(path, seed=0, class_map=None, **cfg):
    torch.manual_seed(seed)
    tiny = {"pretrained_weights": "random", "backbone_kwargs": TINY_VIT, "dim": 32, "val_res": 32, "extra_clusters": 1}
    trained = LitUnsupervisedSegmenter(2, tiny | cfg)
    write_stored(StoredSegmenter(2, plain(trained.cfg), trained.state_dict(), class_map), path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "best.ckpt")


@pytest.fixture
def photos(tmp_path):
    """Fourteen photographs of three sizes."""
    for number in range(14):
        photograph(tmp_path / f"photos/{number:02d}.png", number)
    return tmp_path / "photos"


def photograph(path, seed):
    save(path, picture(seed, SIZES[seed % len(SIZES)]))


def config(checkpoint, images, output_dir, **overrides):
    named = [str(image) for image in (images if isinstance(images, list) else [images])]
    values = {"checkpoint": str(checkpoint), "images": named, "output_dir": str(output_dir), "accelerator": "cpu"}
    return validated(SegmentConfig, values | {"batch_size": 2, "num_workers": 2} | overrides)


def command(cfg, *arguments):
    keys = [f"{key}={cfg[key]}" for key in ("output_dir", "batch_size", "accelerator")]
    script = [sys.executable, str(ROOT / "src_EAGLE" / "segment_images.py")]
    return [*script, *cfg.images, "--checkpoint", cfg.checkpoint, *keys, *arguments]


def content(folder):
    """The bytes of all files but the log, whose lines are in the order of the runs."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOG_NAME}


def test_segment__a_name_as_long_as_file_systems_take(checkpoint, tmp_path):
    """Their limit is bytes; the names of masks and of unfinished masks are longer than the photograph's."""
    for name in ("漢" * 79, "漢" * 83):
        photograph(tmp_path / "photos" / f"{name}.png", 0)
    assert len(segment(config(checkpoint, tmp_path / "photos", tmp_path / "out"))["images"]) == 2


def test_segment__beside_a_run_with_the_same_folder(checkpoint, photos, tmp_path):
    with held(tmp_path / "out" / LOCK_NAME) as number, pytest.raises(EagleError, match=f"out: process {number} on"):
        segment(config(checkpoint, photos, tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture
def computed(monkeypatch):
    """The sizes of the batches that the model computes."""
    noted = []
    label_maps = PhotographSegmenter.label_maps

    def noting(self, batch):
        noted.append([item.photograph.size for item in batch])
        return label_maps(self, batch)

    monkeypatch.setattr(PhotographSegmenter, "label_maps", noting)
    return noted


def test_segment__photographs_of_one_size_are_computed_together(checkpoint, photos, tmp_path, computed, monkeypatch):
    """Of each ``batch_size`` photographs, those of one size, and no more pixels at once than allowed."""
    segment(config(checkpoint, photos, tmp_path / "masks", batch_size=7))
    assert [len(batch) for batch in computed] == [3, 2, 2, 3, 2, 2]
    assert all(len(set(batch)) == 1 for batch in computed)
    computed.clear()
    monkeypatch.setattr("eagle.inference.photograph.BATCH_PIXELS", 1)
    segment(config(checkpoint, photos, tmp_path / "others", batch_size=7))
    assert [len(batch) for batch in computed] == [1] * 14


@pytest.mark.parametrize("overrides", [{"res": 64}, {"cluster_names": "names.txt"}, {}])
def test_segment__changed_setting_computes_all_again(checkpoint, photos, tmp_path, computed, monkeypatch, overrides):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("a\nb\na\n")
    segment(config(checkpoint, photos, tmp_path / "masks"))
    if not overrides:
        write_checkpoint(checkpoint, seed=1)
    computed.clear()
    segment(config(checkpoint, photos, tmp_path / "masks", **overrides))
    assert sum(map(len, computed)) == 14
    segment(config(checkpoint, photos, tmp_path / "fresh", **overrides))
    assert content(tmp_path / "masks") == content(tmp_path / "fresh")


def test_segment__only_changed_or_deleted_files_are_written_again(checkpoint, photos, tmp_path, computed):
    first = segment(config(checkpoint, photos, tmp_path / "masks"))
    before = content(tmp_path / "masks")
    computed.clear()
    assert segment(config(checkpoint, photos, tmp_path / "masks")) == first | {"already_done": 14}
    assert computed == []
    assert content(tmp_path / "masks") == before
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.png")}
    photograph(photos / "03.png", 17)
    os.utime(photos / "03.png", ns=(1, 1))
    (tmp_path / "masks" / "12_ids.png").unlink()
    assert segment(config(checkpoint, photos, tmp_path / "masks"))["already_done"] == 10
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.png")}
    written = {name[:2] for name in after if after[name] != times[name]}
    assert written == {"02", "03", "12", "13", "le"}, "their batches of two, and the legend"
    segment(config(checkpoint, photos, tmp_path / "fresh"))
    assert content(tmp_path / "masks") == content(tmp_path / "fresh")


def test_segment__full_disk_and_torn_record_cost_only_what_was_in_work(
    checkpoint, photos, tmp_path, monkeypatch, computed
):
    save = Segmentation.save

    def full_disk(self, folder):
        if self.name == "11":
            raise OSError(28, "No space left on device")
        return save(self, folder)

    with monkeypatch.context() as patched:
        patched.setattr(Segmentation, "save", full_disk)
        with pytest.raises(OSError, match="No space left"):
            segment(config(checkpoint, photos, tmp_path / "masks"))
    assert not (tmp_path / "masks" / "segments.json").exists()
    log = tmp_path / "masks" / "segments.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    computed.clear()
    assert 0 < segment(config(checkpoint, photos, tmp_path / "masks"))["already_done"] < 14
    assert 0 < sum(map(len, computed)) <= 14
    segment(config(checkpoint, photos, tmp_path / "whole"))
    assert content(tmp_path / "masks") == content(tmp_path / "whole")


def test_segment__unreadable_file_does_not_stop_its_batch(checkpoint, photos, tmp_path, caplog):
    (photos / "03.png").write_bytes(b"torn")
    found = segment(config(checkpoint, photos, tmp_path / "masks"))
    assert list(found["unreadable"]) == [str(photos / "03.png")]
    assert "left out: " in caplog.text
    assert "03.png: cannot be read as an image" in caplog.text
    assert len(found["images"]) == 13
    assert segment(config(checkpoint, photos, tmp_path / "masks")) == found | {"already_done": 12}
    for path in photos.iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(DataError, match=r"none of the 14 files could be segmented: .*segments\.json says why"):
        segment_images(config(checkpoint, photos, tmp_path / "masks"))


def test_segment__another_folder_with_the_same_names_overwrites_and_is_noticed(checkpoint, photos, tmp_path):
    photograph(tmp_path / "other" / "00.png", 33)
    first = segment(config(checkpoint, photos, tmp_path / "masks"))
    segment(config(checkpoint, tmp_path / "other", tmp_path / "masks"))
    assert segment(config(checkpoint, photos, tmp_path / "masks")) == first
    segment(config(checkpoint, photos, tmp_path / "fresh"))
    assert content(tmp_path / "masks") == content(tmp_path / "fresh")


def test_segment__an_input_is_never_replaced(checkpoint, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = content(photos)
    for images in ("photos/../photos", "photos/03.png"):
        with pytest.raises(ConfigError, match="output_dir: photos is a folder of images to segment"):
            segment(config(checkpoint, images, "photos"))
    assert content(photos) == before


@pytest.mark.slow
def test_segment__kill_in_the_middle_and_rerun_give_the_same_bytes(checkpoint, photos, tmp_path, computed):
    for number in range(14, 400):
        photograph(photos / f"{number:03d}.png", number)
    cfg = config(checkpoint, photos, tmp_path / "masks")
    process = subprocess.Popen(command(cfg), stderr=subprocess.DEVNULL)
    log = tmp_path / "masks" / "segments.jsonl"
    while not (log.exists() and log.read_bytes().count(b"\n") >= 20):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_done = log.read_bytes().count(b"\n")
    assert 20 <= n_done < 400
    segment(cfg)
    assert sum(map(len, computed)) < 400 - n_done + 8, "no more than what was in work is computed twice"
    segment(config(checkpoint, photos, tmp_path / "whole"))
    assert content(tmp_path / "masks") == content(tmp_path / "whole")


def test_ordered__keeps_the_order_and_works_at_most_so_far_ahead():
    taken, farthest = 0, 0
    lock = threading.Lock()

    def function(item):
        nonlocal farthest
        with lock:
            farthest = max(farthest, item - taken)
        time.sleep(0.002 * (item % 3))
        if item == 200:
            raise DataError("failed")
        return item

    results = ordered(function, iter(range(201)), n_threads=4, ahead=6)
    for _ in range(200):
        assert next(results) == taken
        with lock:
            taken += 1
    with pytest.raises(DataError, match="failed"):
        next(results)
    assert 2 <= farthest <= 6
