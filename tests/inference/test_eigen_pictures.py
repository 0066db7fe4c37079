"""The whole command on miniatures: every image source, with and without a checkpoint, and the files it writes."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_folders import write_checkpoint

from conftest import TINY_VIT, run_values
from eagle import load_segmenter
from eagle.commands.photographs import VisualizeConfig
from eagle.config.validation import validated
from eagle.data.datasets.base import Classes
from eagle.data.labels import ClassMap, distinct_palette
from eagle.errors import DataError
from eagle.figures.grids import eigenvector_colors
from eagle.inference.eigen_pictures import Viewer, cosine_kmeans, numbered_like, visualize
from miniatures import picture, save, write_halves

CLASSES = Classes(("dark", "light"), np.array([[120, 30, 30], [30, 200, 250]], dtype=np.uint8))
BARE = {"backbone_kwargs": TINY_VIT, "pretrained_weights": "random", "res": 48}
KINDS = ["image", "eigenvector_1", "eigenvector_2", "eigenvector_3", "eicue", "kmeans", "clusters"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a checkpoint whose third cluster has no class, its dataset, and photographs."""
    folder = tmp_path_factory.mktemp("work")
    write_halves(folder / "data" / "halves")
    class_map = ClassMap(CLASSES, {"cluster": [1, 0, -1]})
    write_checkpoint(folder / "last.ckpt", class_map=class_map, **run_values(folder) | {"val_res": 48})
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
    (tmp_path / ".eagle-unfinished-0a_b1c2d.png").write_bytes(b"as a kill leaves it")
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


H, W = 4, 6


class ByColour(torch.nn.Module):
    """Keys that point one way in dark patches of one pixel and another way in light ones, of any length."""

    patch_size = 1

    def forward(self, img):
        light = (img[:, :1] > 0).float()
        lengths = torch.linspace(0.5, 3, H * W).reshape(1, 1, H, W)
        return lengths * torch.cat([1 - light, 0.6 * (1 - light) + light, light, 0 * light], dim=1)


def test_keys__two_flat_halves_are_what_the_first_eigenvector_separates(monkeypatch, tmp_path):
    """With an affinity of ones within halves and c across, L has the eigenvectors 1 and ±1, and a null space beside."""
    monkeypatch.setattr("eagle.inference.eigen_pictures.build_backbone", lambda *_, **__: ByColour())
    is_right = np.arange(W)[None].repeat(H, axis=0) >= W // 2
    photograph = Image.fromarray(is_right.astype(np.uint8) * 255).convert("RGB")
    panels, ids = Viewer(config(tmp_path, n_eigenvectors=1, n_clusters=2, res=H))(photograph)
    halves = np.where(is_right, -1.0, 1.0)
    first, *expected = (panels["eigenvector_1"], eigenvector_colors(halves), eigenvector_colors(-halves))
    assert any(np.abs(np.asarray(first).astype(int) - colors).max() <= 2 for colors in expected)
    cue, kmeans = (np.asarray(panels[kind]) for kind in ("eicue", "kmeans"))
    assert ids is None
    assert np.array_equal(cue == cue[0, 0], ~is_right)
    assert np.array_equal(cue, kmeans), "the same colours for the same places"


@pytest.mark.parametrize(("n", "n_reference"), [(5, 3), (3, 5), (4, 4), (1, 6)])
def test_numbered_like__renames_one_to_one_and_agrees_with_itself(n, n_reference):
    rng = np.random.default_rng(0)
    labels, reference = rng.integers(0, n, (9, 11)), rng.integers(0, n_reference, (9, 11))
    renamed = numbered_like(labels, reference)
    pairs = set(zip(labels.ravel().tolist(), renamed.ravel().tolist(), strict=True))
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs}) == n
    assert renamed.max() < max(n, n_reference)
    assert np.array_equal(numbered_like(rng.permutation(n_reference)[reference], reference), reference)


def test_cosine_kmeans__finds_directions_and_few_or_equal_patches_are_no_error(recwarn):
    expected = np.array([[0, 0, 1, 1], [0, 2, 2, 1]])
    features = torch.eye(3)[torch.from_numpy(expected)].permute(2, 0, 1) * torch.logspace(-2, 2, 8).reshape(2, 4)
    assert np.array_equal(numbered_like(cosine_kmeans(features, 3, seed=0), expected), expected)
    assert cosine_kmeans(torch.randn(4, 1, 2), 8, seed=0).shape == (1, 2)
    assert (cosine_kmeans(torch.ones(4, 3, 3), 3, seed=0) == 0).all()
    assert not len(recwarn)
