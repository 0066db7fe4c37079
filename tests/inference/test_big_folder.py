"""Large folders: what a rerun skips, what a kill costs, how processes share the files, and how much waits in memory."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from eagle.config.validation import validated
from eagle.data.named_files import named_files, output_names
from eagle.errors import DataError
from eagle.inference import image_files
from eagle.inference.folder import segment
from eagle.inference.photograph import PhotographSegmenter, Prepared
from eagle.inference.pipeline import batches, bounded_calls, chunks, ordered
from eagle.inference.segments_log import joined_records
from eagle.training.run import train
from segment_images import SegmentConfig

SIZES = ((48, 40), (40, 48), (64, 40))


@pytest.fixture
def checkpoint(make_run):
    return train(make_run()) / "last.ckpt"


@pytest.fixture
def photos(tmp_path):
    """Fourteen photographs of three sizes, in chunks of eight with ``batch_size=2``."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(14):
        photograph(folder / f"{number:02d}.png", number)
    return folder


def photograph(path, seed):
    width, height = SIZES[seed % len(SIZES)]
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)


def config(checkpoint, images, output_dir, **overrides):
    values = {"checkpoint": str(checkpoint), "images": [str(images)], "output_dir": str(output_dir), "batch_size": 2}
    return validated(SegmentConfig, values | {"accelerator": "cpu", "num_workers": 2} | overrides)


def command(cfg, *arguments):
    keys = [f"{key}={cfg[key]}" for key in ("output_dir", "batch_size", "accelerator")]
    script = [sys.executable, str(ROOT / "src_EAGLE" / "segment_images.py")]
    return [*script, *cfg.images, "--checkpoint", cfg.checkpoint, *keys, *arguments]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def computed(monkeypatch):
    """The sizes of the batches that the model computes."""
    noted = []
    label_maps = PhotographSegmenter.label_maps

    def noting(self, batch, size=None):
        noted.append([item.photograph.size for item in batch])
        return label_maps(self, batch, size)

    monkeypatch.setattr(PhotographSegmenter, "label_maps", noting)
    return noted


def test_segment__rerun_computes_nothing_and_changes_nothing(checkpoint, photos, tmp_path, computed):
    first = segment(config(checkpoint, photos, tmp_path / "masks"))
    before = content(tmp_path / "masks")
    assert len(computed) > 0
    assert all(len(set(batch)) == 1 for batch in computed), "images of one size"
    assert max(map(len, computed)) == 2
    assert list(first["images"]) == [str(path) for path in sorted(photos.iterdir())]
    computed.clear()
    assert segment(config(checkpoint, photos, tmp_path / "masks")) == first
    assert computed == []
    assert content(tmp_path / "masks") == before


@pytest.mark.parametrize("overrides", [{"res": 64}, {"probe": "linear"}, {"run_crf": True}, {"cluster_names": "names"}])
def test_segment__changed_setting_computes_all_again(checkpoint, photos, tmp_path, computed, overrides):
    if "cluster_names" in overrides:
        overrides = {"cluster_names": str(tmp_path / "names.txt")}
        (tmp_path / "names.txt").write_text("a\nb\na\n")
    segment(config(checkpoint, photos, tmp_path / "masks"))
    computed.clear()
    segment(config(checkpoint, photos, tmp_path / "masks", **overrides))
    assert sum(map(len, computed)) == 14
    segment(config(checkpoint, photos, tmp_path / "fresh", **overrides))
    assert content(tmp_path / "masks") == content(tmp_path / "fresh")


def test_segment__changed_checkpoint_computes_all_again(make_run, photos, tmp_path, computed):
    for seed in (0, 1):
        computed.clear()
        checkpoint = train(make_run(seed=seed, experiment_name=f"run_{seed}", max_steps=1)) / "last.ckpt"
        (tmp_path / "model.ckpt").write_bytes(checkpoint.read_bytes())
        segment(config(tmp_path / "model.ckpt", photos, tmp_path / "masks"))
        assert sum(map(len, computed)) == 14


def test_segment__only_changed_or_deleted_files_are_written_again(checkpoint, photos, tmp_path, computed):
    segment(config(checkpoint, photos, tmp_path / "masks"))
    batches_before = [*computed]
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.png")}
    photograph(photos / "03.png", 17)
    os.utime(photos / "03.png", ns=(1, 1))
    (tmp_path / "masks" / "12_ids.png").unlink()
    computed.clear()
    segment(config(checkpoint, photos, tmp_path / "masks"))
    assert len(computed) == 2
    assert all(batch in batches_before for batch in computed), "neighbours complete the batch that it was in"
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.png")}
    written = {name[:2] for name in after if after[name] != times[name]}
    assert written == {"03", "12", "le"}, "and the legend"
    segment(config(checkpoint, photos, tmp_path / "fresh"))
    assert content(tmp_path / "masks") == content(tmp_path / "fresh")


def test_segment__torn_last_record_costs_one_file(checkpoint, photos, tmp_path, computed):
    segment(config(checkpoint, photos, tmp_path / "masks"))
    before, log = content(tmp_path / "masks"), tmp_path / "masks" / "segments.jsonl"
    torn = log.read_bytes()[:-40]
    (tmp_path / "masks" / "segments.rank-0.jsonl").write_bytes(torn)
    log.unlink()
    computed.clear()
    segment(config(checkpoint, photos, tmp_path / "masks"))
    assert len(computed) == 1
    assert content(tmp_path / "masks") == before


def test_segment__error_while_writing_keeps_what_is_finished(checkpoint, photos, tmp_path, monkeypatch, computed):
    segment(config(checkpoint, photos, tmp_path / "whole"))
    write_masks = image_files.write_masks

    def full_disk(folder, name, *arguments):
        if name == "05":
            raise OSError(28, "No space left on device")
        return write_masks(folder, name, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(image_files, "write_masks", full_disk)
        with pytest.raises(OSError, match="No space left"):
            segment(config(checkpoint, photos, tmp_path / "masks"))
    assert not (tmp_path / "masks" / "segments.json").exists()
    computed.clear()
    segment(config(checkpoint, photos, tmp_path / "masks"))
    assert 0 < sum(map(len, computed)) < 14
    assert content(tmp_path / "masks") == content(tmp_path / "whole")


def test_segment__unreadable_file_does_not_stop_its_batch(checkpoint, photos, tmp_path, computed):
    (photos / "03.png").write_bytes(b"torn")
    found = segment(config(checkpoint, photos, tmp_path / "masks"))
    assert list(found["unreadable"]) == [str(photos / "03.png")]
    assert len(found["images"]) == 13
    computed.clear()
    assert segment(config(checkpoint, photos, tmp_path / "masks")) == found
    assert computed == [], "it is read again, but costs nothing more"
    photograph(photos / "03.png", 3)
    assert len(segment(config(checkpoint, photos, tmp_path / "masks"))["images"]) == 14


def test_segment__another_folder_with_the_same_names_overwrites_and_is_noticed(checkpoint, photos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    photograph(other / "00.png", 33)
    first = segment(config(checkpoint, photos, tmp_path / "masks"))
    segment(config(checkpoint, other, tmp_path / "masks"))
    assert segment(config(checkpoint, photos, tmp_path / "masks")) == first
    segment(config(checkpoint, photos, tmp_path / "fresh"))
    assert content(tmp_path / "masks") == content(tmp_path / "fresh")


def test_segment__two_processes_write_what_one_writes(checkpoint, photos, tmp_path):
    cfg = config(checkpoint, photos, tmp_path / "two")
    done = subprocess.run(command(cfg, "devices=2", "strategy=ddp"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("14 segmented, 0 left out") == 1
    segment(config(checkpoint, photos, tmp_path / "one"))
    assert content(tmp_path / "two") == content(tmp_path / "one")


@pytest.mark.slow
def test_segment__kill_in_the_middle_and_rerun_give_the_same_bytes(checkpoint, photos, tmp_path, computed):
    for number in range(14, 400):
        photograph(photos / f"{number:03d}.png", number)
    cfg = config(checkpoint, photos, tmp_path / "masks")
    process = subprocess.Popen(command(cfg), stderr=subprocess.DEVNULL)
    log = tmp_path / "masks" / "segments.rank-0.jsonl"
    while not (log.exists() and log.read_bytes().count(b"\n") >= 20):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_done = log.read_bytes().count(b"\n")
    assert 20 <= n_done < 400
    segment(cfg)
    assert sum(map(len, computed)) < 400 - n_done + 8, "no more than the interrupted chunk is computed twice"
    segment(config(checkpoint, photos, tmp_path / "whole"))
    assert content(tmp_path / "masks") == content(tmp_path / "whole")


def test_joined_records__missing_record_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"lacks the results of 2 files, e\.g\. a\.jpg; all processes"):
        joined_records(tmp_path, {"a.jpg": "a", "b.jpg": "b"})


def test_ordered__keeps_the_order_and_works_at_most_so_far_ahead():
    taken, farthest = 0, 0
    lock = threading.Lock()

    def function(item):
        nonlocal farthest
        with lock:
            farthest = max(farthest, item - taken)
        time.sleep(0.002 * (item % 3))
        return item

    with ThreadPoolExecutor(4) as pool:
        for result in ordered(function, iter(range(200)), pool, ahead=6):
            assert result == taken
            with lock:
                taken += 1
    assert taken == 200
    assert 2 <= farthest <= 6


def test_bounded_calls__waits_while_many_are_in_work_and_raises_what_they_raise():
    in_work, most = 0, 0
    lock = threading.Lock()

    def leave():
        nonlocal in_work
        time.sleep(0.002)
        with lock:
            in_work -= 1

    def fail():
        raise DataError("failed")

    with bounded_calls(2, 5) as call:
        for _ in range(50):
            with lock:
                in_work += 1
                most = max(most, in_work)
            call(leave)
    assert in_work == 0
    assert 3 <= most <= 6, "five wait, and the caller holds one"
    with pytest.raises(DataError, match="failed"), bounded_calls(2, 5) as call:
        call(fail)


def prepared(width, height=10):
    image = Image.new("RGB", (width, height))
    return Prepared(image, image)


def test_batches__one_size_each_and_no_more_waiting_than_allowed():
    items = [prepared(width) for width in (10, 20, 10, 30, 10, 20)]
    grouped = [[item.seen.width for item in batch] for batch in batches(items, 2, lambda item: item)]
    assert grouped == [[10, 10], [20, 20], [30], [10]]
    grouped = [[item.seen.width for item in batch] for batch in batches(items, 8, lambda item: item, 550)]
    assert grouped == [[30], [20, 20], [10, 10, 10]], "700 pixels wait: the size with most pixels leaves"


def test_batches__large_images_are_computed_alone():
    items = [prepared(2000, 3000) for _ in range(3)]
    assert [len(batch) for batch in batches(items, 8, lambda item: item)] == [1, 1, 1]


def test_chunks__cover_the_list_in_order():
    parts = chunks(list(range(21)), batch_size=2)
    assert list(map(len, parts)) == [8, 8, 5]
    assert [item for part in parts for item in part] == list(range(21))


def test_output_names__unique_whatever_the_order():
    files = [Path(name) for name in ("z/a_png_2.png", "x/a.png", "y/a.png", "w/a.jpg", "v/b.png")]
    assert output_names(files) == ["a_png_2", "a_png", "a_png_3", "a_jpg", "b"]


def test_output_names__hundred_thousand_files_take_seconds():
    files = [Path(f"{number % 50_000:06d}.{'jpg' if number < 50_000 else 'png'}") for number in range(100_000)]
    start = time.process_time()
    names = output_names(files)
    assert time.process_time() - start < 10, "counting the stems anew for each name takes minutes"
    assert names[0] == "000000_jpg"
    assert len(set(names)) == 100_000


def test_named_files__lists_a_folder_without_asking_for_each_file(photos, monkeypatch):
    asked = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(path) or stat(path, **options))
    assert len(named_files([str(photos)])) == 14
    assert set(map(str, asked)) <= {str(photos)}


def test_named_files__a_file_named_twice_counts_once(photos):
    assert len(named_files([str(photos), str(photos / "03.png")])) == 14
