"""The whole command on miniatures: every image source, with and without a checkpoint, and the files it writes."""

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TINY_VIT, run_values
from eagle import load_segmenter
from eagle.checkpoints import StoredSegmenter, write_stored
from eagle.commands.photographs import VisualizeConfig
from eagle.config.validation import validated
from eagle.data.datasets.base import Classes
from eagle.data.labels import ClassMap, distinct_palette
from eagle.errors import DataError
from eagle.inference.eigen_pictures import visualize
from eagle.segmenter import LitUnsupervisedSegmenter
from miniatures import picture, save, write_halves

CLASSES = Classes(("dark", "light"), np.array([[120, 30, 30], [30, 200, 250]], dtype=np.uint8))
BARE = {"backbone_kwargs": TINY_VIT, "pretrained_weights": "random", "res": 48}
KINDS = ["image", "eigenvector_1", "eigenvector_2", "eigenvector_3", "eicue", "kmeans", "clusters"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a checkpoint whose third cluster has no class, its dataset, and photographs."""
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    write_halves(folder / "data" / "halves")
    segmenter = LitUnsupervisedSegmenter(2, run_values(folder) | {"val_res": 48})
    class_map = ClassMap(CLASSES, {"cluster": [1, 0, -1]})
    stored = StoredSegmenter(2, dict(segmenter.hparams["cfg"]), segmenter.state_dict(), class_map)
    write_stored(stored, folder / "last.ckpt")
    for name, size in (("a.png", (64, 48)), ("b.jpg", (48, 96)), ("c.png", (80, 80))):
        save(folder / "photos" / name, picture(sum(size), size))
    (folder / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


def config(output_dir, **values):
    return validated(VisualizeConfig, {"output_dir": str(output_dir), "accelerator": "cpu", **values})


def colors_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_checkpoint__files_hold_the_labels_in_the_classes_colours(work, tmp_path):
    values = {"images": [str(work / "photos")], "checkpoint": str(work / "last.ckpt"), "panels": True}
    assert visualize(config(tmp_path, **values)) == f"3 of 4 images, 1 left out: {tmp_path}/grid.png"
    assert {path.name for path in tmp_path.iterdir()} == {"grid.png"} | {
        f"{name}_{kind}.png" for name in "abc" for kind in KINDS
    }
    segmenter = load_segmenter(work / "last.ckpt", device="cpu")
    for name, size in {"a": (64, 48), "b": (48, 96), "c": (48, 48)}.items():
        for kind in KINDS[:-1]:
            path = tmp_path / f"{name}_{kind}.png"
            assert Image.open(path).size == (2 * size[0], 2 * size[1])
            assert colors_of(path).reshape(-1, 3).std(axis=0).max() > 5
            if kind in ("eicue", "kmeans"):
                assert np.array_equal(colors_of(path), distinct_palette(40)[np.asarray(Image.open(path))])
        path = tmp_path / f"{name}_clusters.png"
        ids = np.asarray(Image.open(path)).astype(int)
        table = np.zeros((256, 3), dtype=np.uint8)
        table[:2] = CLASSES.palette
        assert np.array_equal(colors_of(path), table[ids])
        if name == "a":  # whole patches already, so that both commands see the same pixels
            expected = segmenter.segment(work / "photos" / "a.png").ids
            assert np.array_equal(ids[::2, ::2], np.where(expected < 0, 255, expected))


def test_backbone__has_no_final_clusters_and_draws_what_can_be_read(work, tmp_path, caplog):
    visualize(config(tmp_path, images=[str(work / "photos")], panels=True, n_clusters=4, **BARE))
    assert colors_of(tmp_path / "grid.png").std() > 10
    assert not [*tmp_path.glob("*_clusters.png")]
    for kind in ("eicue", "kmeans"):
        assert np.unique(np.asarray(Image.open(tmp_path / f"a_{kind}.png"))).tolist() == [0, 1, 2, 3]
    assert "torn.jpg: cannot be read as an image" in caplog.text
    save(tmp_path / "long.png", picture(0, (2000, 40)))
    with pytest.raises(DataError, match="none of 1 images could be read"):
        visualize(config(tmp_path, images=[str(tmp_path / "long.png")], **BARE | {"res": 160}))
    assert "left out: long: 1000×20 patches are more than 10000; lower res or crop" in caplog.text


def test_sources__dataset_of_the_checkpoint_or_bundled_photographs(work, tmp_path, monkeypatch):
    values = {"checkpoint": str(work / "last.ckpt"), "panels": True}
    line = visualize(config(tmp_path, **values, split="train", max_images=2))
    assert line == f"2 of 4 images: {tmp_path}/grid.png"
    assert (tmp_path / "3_image.png").is_file()
    (work / "data").rename(work / "moved")
    visualize(config(tmp_path / "run", **values, pytorch_data_dir=str(work / "moved"), max_images=1))
    (work / "moved").rename(work / "data")
    photograph = Image.open(work / "data/halves/imgs/val/0.png").resize((112, 96), Image.Resampling.LANCZOS)
    assert np.array_equal(colors_of(tmp_path / "run/0_image.png"), np.asarray(photograph))
    monkeypatch.setattr("eagle.data.named_files.PHOTOGRAPHS", (("skimage.data", "coffee.png"),))
    visualize(config(tmp_path, bundled=True, panels=True, **BARE))
    assert Image.open(tmp_path / "coffee_image.png").size == (144, 96)
