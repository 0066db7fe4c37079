"""The whole command on miniatures: every image source, with and without a checkpoint, and the files it writes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT, TINY_VIT, run_values
from eagle.checkpoints.formats import StoredSegmenter, write_stored
from eagle.config.validation import validated
from eagle.data.class_map import ClassMap
from eagle.data.datasets.base import Classes
from eagle.data.palette import distinct_palette
from eagle.errors import CheckpointError, ConfigError, DataError
from eagle.inference.folders import segment
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.visualization.image_sources import NamedImage, spread
from eagle.visualization.visualize import visualize
from miniatures import picture, save, write_halves
from segment_images import SegmentConfig
from visualize_eigen import VisualizeConfig

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
    return validated(VisualizeConfig, {"output_dir": str(output_dir), "accelerator": "cpu", "panel_scale": 1, **values})


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_checkpoint__panels_hold_the_labels_and_none_is_blank(work, tmp_path):
    photos = str(work / "photos")
    outcome = visualize(config(tmp_path, images=[photos], checkpoint=str(work / "last.ckpt"), panels=True))
    assert (outcome.n_shown, outcome.n_named) == (3, 4)
    assert outcome.grids == [tmp_path / "grid.png"]
    names = {f"{name}_{kind}.png" for name in "abc" for kind in KINDS}
    assert {path.name for path in tmp_path.iterdir()} == names | {"grid.png"}
    sizes = {"a": (64, 48), "b": (48, 96), "c": (48, 48)}
    for name, size in sizes.items():
        for kind in KINDS:
            path = tmp_path / f"{name}_{kind}.png"
            assert Image.open(path).size == size
            assert kind == "clusters" or pixels_of(path).reshape(-1, 3).std(axis=0).max() > 5
        for kind in ("eicue", "kmeans"):
            labels = np.asarray(Image.open(tmp_path / f"{name}_{kind}.png"))
            assert np.array_equal(pixels_of(tmp_path / f"{name}_{kind}.png"), distinct_palette(40)[labels])
    segment(validated(SegmentConfig, {"images": [photos], "checkpoint": str(work / "last.ckpt"),
                                      "output_dir": str(tmp_path / "masks"), "accelerator": "cpu"}))  # fmt: skip
    for name in ("a", "b"):  # whole patches already, so that both commands see the same pixels
        ids = np.asarray(Image.open(tmp_path / "masks" / f"{name}_ids.png"))
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{name}_clusters.png")), ids)
        table = np.zeros((256, 3), dtype=np.uint8)
        table[:2] = CLASSES.palette
        assert np.array_equal(pixels_of(tmp_path / f"{name}_clusters.png"), table[ids])


def test_checkpoint__every_class_shown_is_in_the_grid_with_its_name(work, tmp_path, monkeypatch):
    from eagle.visualization import visualize as module

    legends = []
    draw = module.panel_grid

    def keep(rows, legend, *args, **more):
        legends.append([patch.get_label() for patch in legend])
        return draw(rows, legend, *args, **more)

    monkeypatch.setattr(module, "panel_grid", keep)
    photos = [str(work / "photos")]
    visualize(config(tmp_path, images=photos, checkpoint=str(work / "last.ckpt"), panels=True, rows_per_grid=1))
    for name, legend in zip("abc", legends, strict=True):
        shown = {255 if i < 0 else i: n for i, n in {0: "dark", 1: "light", -1: "no class"}.items()}
        ids = np.unique(np.asarray(Image.open(tmp_path / f"{name}_clusters.png"))).tolist()
        assert legend == [shown[class_id] for class_id in ids]
    assert {name for legend in legends for name in legend} == {"dark", "light", "no class"}


def test_unreadable__is_listed_at_the_end_and_the_last_rows_are_drawn(work, tmp_path, caplog):
    values = {"images": [str(work / "photos")], "rows_per_grid": 2, **BARE}
    outcome = visualize(config(tmp_path, **values))
    assert [path.name for path in outcome.grids] == ["grid_1.png", "grid_2.png"]
    assert all(pixels_of(path).std() > 10 for path in outcome.grids)
    assert "left out: " in caplog.text
    assert "torn.jpg: cannot be read as an image" in caplog.text
    with pytest.raises(DataError, match="none of 1 images could be read"):
        visualize(config(tmp_path, **values | {"images": [str(work / "photos" / "torn.jpg")]}))


def test_backbone__has_no_final_clusters_and_says_so(work, tmp_path, monkeypatch):
    from eagle.visualization import visualize as module

    notes = []
    draw = module.panel_grid
    monkeypatch.setattr(
        module, "panel_grid", lambda *args, note: (notes.append((args[1], note)), draw(*args, note=note))[1]
    )
    visualize(config(tmp_path, images=[str(work / "photos" / "a.png")], panels=True, n_clusters=4, **BARE))
    assert {path.name for path in tmp_path.iterdir()} == {"grid.png", *(f"a_{kind}.png" for kind in KINDS[:-1])}
    for kind in ("eicue", "kmeans"):
        assert np.unique(np.asarray(Image.open(tmp_path / f"a_{kind}.png"))).tolist() == [0, 1, 2, 3]
    ((legend, note),) = notes
    assert not legend
    assert "No checkpoint: Laplacian of the affinity of normalised keys" in note
    assert "k-means has 4 clusters" in note


def test_sources__named_dataset_or_that_of_the_checkpoint(work, tmp_path):
    named = {"pytorch_data_dir": str(work / "data"), "dir_dataset_name": "halves", "dir_dataset_n_classes": 2}
    outcome = visualize(config(tmp_path / "named", **named, **BARE, split="train", max_images=2, panels=True))
    assert (outcome.n_shown, outcome.n_named) == (2, 4)
    assert (tmp_path / "named/0_image.png").is_file()
    assert (tmp_path / "named/3_image.png").is_file()
    outcome = visualize(config(tmp_path / "run", checkpoint=str(work / "last.ckpt"), panels=True, max_images=1))
    shown = pixels_of(tmp_path / "run/0_image.png")
    photograph = Image.open(work / "data/halves/imgs/val/0.png").resize((56, 48), Image.Resampling.LANCZOS)
    assert np.array_equal(shown, np.asarray(photograph))


def test_sources__bundled_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr("eagle.data.bundled.PHOTOGRAPHS", (("skimage.data", "coffee.png"),))
    outcome = visualize(config(tmp_path, bundled=True, panels=True, **BARE))
    assert outcome.n_named == 1
    assert Image.open(tmp_path / "coffee_image.png").size == (72, 48)


def test_panels__are_as_large_as_asked_in_whole_patches(work, tmp_path):
    images = [str(work / "photos" / "a.png")]
    for scale in (1, 3):
        folder = tmp_path / str(scale)
        visualize(config(folder, images=images, checkpoint=str(work / "last.ckpt"), panels=True, panel_scale=scale))
    for kind in KINDS[1:-1]:
        once, thrice = (np.asarray(Image.open(tmp_path / scale / f"a_{kind}.png")) for scale in "13")
        assert np.array_equal(once.repeat(3, axis=0).repeat(3, axis=1), thrice)
    for kind in ("image", "clusters"):
        assert Image.open(tmp_path / "3" / f"a_{kind}.png").size == (192, 144)


def test_sources__exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0, (64, 48))).save(tmp_path / "turned.jpg", exif=exif)
    visualize(config(tmp_path / "out", images=[str(tmp_path / "turned.jpg")], panels=True, **BARE))
    assert Image.open(tmp_path / "out/turned_image.png").size == (48, 64)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, ConfigError, "images: name images or folders, set bundled=true, or name a dataset"),
        ({"images": ["a.png"], "dir_dataset_name": "x"}, DataError, "a.png: no such file"),
        ({"bundled": True, "dataset_name": "cityscapes"}, ConfigError, "images: name files or a dataset, not both"),
        ({"bundled": True, "run_crf": True}, ConfigError, "run_crf: .* need a checkpoint"),
        (
            {"bundled": True, "checkpoint": "x.ckpt", "key_blocks": [1]},
            ConfigError,
            "key_blocks: the checkpoint contains the backbone",
        ),
        ({"bundled": True, "checkpoint": "x.ckpt"}, CheckpointError, "x.ckpt"),
        ({"bundled": True, **BARE, "res": 50}, ConfigError, "res: 50 is not a multiple of the patch size 8; use 48"),
    ],
)
def test_errors__name_the_key(tmp_path, values, error, message):
    with pytest.raises(error, match=message):
        visualize(config(tmp_path, **values))


def test_long_images__are_left_out_and_the_message_names_res(tmp_path, caplog):
    save(tmp_path / "long.png", picture(0, (2000, 40)))
    with pytest.raises(DataError, match="none of 1"):
        visualize(config(tmp_path / "out", images=[str(tmp_path / "long.png")], **BARE | {"res": 160}))
    assert "left out: long: 1000×20 patches are more than 10000; lower res or crop" in caplog.text


@pytest.mark.parametrize(("n", "most", "wanted"), [(5, None, "01234"), (5, 9, "01234"), (9, 3, "048"), (9, 1, "0")])
def test_spread__is_even_and_in_order(n, most, wanted):
    images = [NamedImage(str(i), Image.Image) for i in range(n)]
    assert "".join(image.name for image in spread(images, most)) == wanted


def test_command_line__draws_and_says_where(work, tmp_path):
    words = [str(work / "photos"), "--checkpoint", str(work / "last.ckpt"), f"output_dir={tmp_path}", "max_images=4"]
    done = subprocess.run(
        [sys.executable, ROOT / "src_EAGLE/visualize_eigen.py", *words, "accelerator=cpu", "rows_per_grid=2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"3 of 4 images, 1 left out: {tmp_path}/grid_1.png {tmp_path}/grid_2.png\n"
    assert "torn.jpg: cannot be read" in done.stderr.splitlines()[-1]
