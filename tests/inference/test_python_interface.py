"""The Python interface: photographs in any form in, label maps, codes and eigenvectors out."""

import io
import sys

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from test_folders import config, write_checkpoint

from conftest import ROOT
from eagle import LitUnsupervisedSegmenter, load_segmenter
from eagle.data.datasets.base import Classes
from eagle.data.labels import ClassMap
from eagle.data.views import image_tensor, normalize
from eagle.errors import CheckpointError, ConfigError, DataError
from eagle.inference.folders import segment
from eagle.inference.photograph import whole_patch_input
from eagle.inference.segmenter import Segmenter
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.laplacian import normalized_laplacian
from miniatures import picture, save

NAMED = ClassMap(
    Classes(("sky", "ground"), np.array([[0, 0, 200], [90, 60, 0]], dtype=np.uint8)),
    {"cluster": [0, 1, -1], "linear": [0, 1]},
)


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "best.ckpt", class_map=NAMED, val_res=48, eigen_cluster=3)


@pytest.fixture
def segmenter(checkpoint):
    return load_segmenter(checkpoint, device="cpu")


@pytest.mark.parametrize(
    "options",
    [{}, {"probe": "linear"}, {"full_resolution": True, "window": 32}, {"refine": "crf"}, {"refine": "both"}],
)
def test_segment__lists_of_any_form_equal_the_command(checkpoint, segmenter, tmp_path, options):
    """Files, PIL images and arrays of several sizes, in any order, give the masks of ``segment_images.py``."""
    pixels = [picture(seed, size) for seed, size in enumerate([(60, 48), (48, 75), (60, 48)])]
    paths = [tmp_path / f"photo é {i}.png" for i in range(3)]
    for path, array in zip(paths, pixels, strict=True):
        Image.fromarray(array).save(path)
    content = segment(config(checkpoint, paths, tmp_path / "masks", **options))
    results = segmenter.segment([paths[0], Image.fromarray(pixels[1]), pixels[2]], batch_size=2, **options)
    assert [result.name for result in results] == ["photo é 0", "image_1", "image_2"]
    for path, array, result in zip(paths, pixels, results, strict=True):
        ids = np.asarray(Image.open(tmp_path / "masks" / f"{path.stem}_ids.png"))
        assert result.ids.shape == array.shape[:2]
        assert np.array_equal(np.where(result.ids < 0, 255, result.ids), ids)
        assert result.shares() == content["images"][str(path)]["shares"]
    assert segmenter.segment(Image.open(paths[1])).name == "photo é 1", "else one would replace the other's masks"


def test_segmentation__names_colours_overlay_and_files(segmenter, tmp_path):
    result = segmenter.segment(picture(0, (90, 60)))
    assert result.names == ("sky", "ground")
    assert np.array_equal(result.palette, NAMED.classes.palette)
    assert set(result.shares()) <= {"sky", "ground", "no class"}
    assert sum(result.shares().values()) == pytest.approx(1, abs=1e-5)
    inside = np.array(result.overlay(opacity=1))[result.ids == 1]
    assert {tuple(color) for color in inside.tolist()} <= {(90, 60, 0), (255, 255, 255)}
    assert np.array_equal(result.photograph, picture(0, (90, 60)))
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert np.array_equal(np.array(shown), np.array(result.overlay()))
    files = result.save(tmp_path / "new", "a")
    assert [path.name for path in files.values()] == ["a_ids.png", "a_color.png", "a_overlay.png"]
    assert np.array_equal(np.asarray(Image.open(files["overlay"])), np.asarray(result.overlay()))
    assert result.save(tmp_path)["ids"] == tmp_path / "image_ids.png"


def test_segment__cluster_names_and_grey_or_transparent_arrays(segmenter, tmp_path):
    (tmp_path / "names.txt").write_text("tree\n\ntree\n")
    array = picture(0, (60, 48))
    result = segmenter.segment(np.dstack([array, array[..., :1]]), cluster_names=tmp_path / "names.txt")
    assert result.names == ("tree",)
    assert np.array_equal(result.photograph, array)
    assert segmenter.segment(array[..., 0]).ids.shape == (48, 60)
    assert segmenter.segment([]) == []


def test_segment__photographs_are_upright_and_results_keep_their_pixels(segmenter, tmp_path):
    array = picture(0, (60, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
    assert segmenter.segment(tmp_path / "turned.png").ids.shape == (60, 48)
    assert segmenter.segment(Image.open(tmp_path / "turned.png")).ids.shape == (60, 48)
    given = array.copy()
    result = segmenter.segment(given)
    given[:] = 0
    assert np.array_equal(result.photograph, array)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        (np.zeros((0, 5, 3), np.uint8), "an array of uint8, 0×5×3: pass a file name, a PIL image, or a uint8 array"),
        (np.zeros((8, 8, 3)), "an array of float64, 8×8×3: pass"),
        (np.zeros((1, 500, 3), np.uint8), "the array: 500×1 pixels are too narrow"),
        (Image.new("F", (8, 8)), "the image: its pixel format F has no known value range"),
        (Image.new("RGB", (0, 8)), "the image: 0×8 pixels are no image"),
        (torch.zeros(3, 8, 8), "a value of type Tensor: pass"),
    ],
)
def test_segment__what_is_no_image_is_named_in_one_line(segmenter, image, message):
    for call in (segmenter.segment, segmenter.eigenvectors, lambda given: segmenter.segment([picture(0), given])):
        with pytest.raises(DataError) as error:
            call(image)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": "clusters"}, "unknown probe 'clusters': did you mean 'cluster'?"),
        ({"res": 50}, "res: 50 is not a multiple of the patch size 8; use 48 or 56"),
        ({"window": -8}, "window: -8 is not a multiple of the patch size 8; use 8"),
        ({"refine": "auto"}, "unknown refinement 'auto'"),
        ({"crf_backend": "numba"}, "unknown CRF backend 'numba'"),
        ({"batch_size": 0}, "batch_size: 0 is too small"),
        ({"res": "64"}, "res: '64' is no whole number"),
        ({"n_clusters": 0}, "n_clusters: "),
        ({"refine": None}, "unknown refinement 'None'"),
        ({"res": 64, "full_resolution": True}, "res: with full_resolution photographs keep their own size"),
        ({"probe": "linear", "cluster_names": __file__}, "cluster_names: the linear probe has classes"),
    ],
)
def test_segment__invalid_options_are_named(segmenter, options, message):
    with pytest.raises(ConfigError) as error:
        segmenter.segment(picture(0), **options)
    assert message in str(error.value)


def test_segment_codes__takes_what_codes_takes_and_refuses_codes_of_anything_else(segmenter, tmp_path):
    save(tmp_path / "photo.png", picture(0, (75, 48)))
    code = segmenter.codes(tmp_path / "photo.png")
    result = segmenter.segment_codes(tmp_path / "photo.png", code)
    assert np.array_equal(result.ids, segmenter.segment(tmp_path / "photo.png").ids)
    assert result.name == "photo"
    for wrong in (code[:, :3], code[:, :, :-1], torch.cat([code, code])):
        with pytest.raises(DataError, match=r"codes of \(1, 32, .* are needed for this photograph and res"):
            segmenter.segment_codes(tmp_path / "photo.png", wrong)
    with pytest.raises(ConfigError, match="unknown refinement 'spectal': did you mean 'spectral'"):
        segmenter.segment_codes(tmp_path / "photo.png", code, refine="spectal")


def test_segmentation__refuses_a_file_as_folder_and_an_impossible_opacity(segmenter, tmp_path):
    result = segmenter.segment(picture(0))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"folder: .*file is a file"):
        result.save(tmp_path / "file")
    for opacity in (-0.1, 2):
        with pytest.raises(ConfigError, match=r"opacity: .* is not from 0 to 1"):
            result.overlay(opacity)


def test_eigenvectors_and_cue__are_trainings(segmenter):
    photograph = Image.fromarray(picture(0, (75, 48)))
    vectors, cue = segmenter.eigenvectors_and_cue(photograph)
    assert (vectors.shape, vectors.dtype) == ((2, 6, 9), np.float32)
    img = whole_patch_input(photograph, 48, 8)
    with torch.no_grad():
        code = segmenter(img)
        expected, _ = segmenter.model._eigenvectors(img, img, code, code)
    assert np.allclose(vectors, expected[0, :, 1:].T.reshape(2, 6, 9), atol=1e-4)
    assert np.array_equal(cue, segmenter.cues(img)[0])
    assert np.allclose(segmenter.eigenvectors(photograph, n=1), vectors[:1], atol=1e-6)
    assert segmenter.eigenvectors(photograph, n=5, res=64).shape == (5, 8, 12)
    for n in (0, 54):
        with pytest.raises(ConfigError, match=f"n: {n} eigenvectors of 6×9 patches"):
            segmenter.eigenvectors(photograph, n=n)


@pytest.mark.parametrize(("mode", "other"), [("released", "paper"), ("paper", "released")])
def test_eigenvectors__colours_enter_as_in_training(make_config, mode, other):
    """Each map is an eigenvector of the Laplacian with those colours, and only of that one."""
    torch.manual_seed(0)
    model = LitUnsupervisedSegmenter(2, make_config(val_res=48, eigen_cluster=4, color_affinity=mode))
    segmenter = Segmenter(model, None, Fabric(accelerator="cpu", devices=1))
    photograph = Image.fromarray(np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    vectors, img = segmenter.eigenvectors(photograph).reshape(3, -1), whole_patch_input(photograph, 48, 8)
    code, residual = segmenter.codes(img), {}
    for colors in (mode, other):
        affinity = feature_affinity(code.flatten(2).transpose(1, 2)) + color_affinity(img, (6, 8), colors)
        product = vectors @ normalized_laplacian(affinity)[0][0].numpy()
        quotient = (product * vectors).sum(axis=1, keepdims=True)
        residual[colors] = np.abs(product - quotient * vectors).max()
    assert residual[mode] < 1e-4 < residual[other]


def test_codes__of_tensors_and_photographs(segmenter):
    photographs = [picture(seed, (72, 48)) for seed in range(2)]
    batch = torch.stack([normalize(image_tensor(Image.fromarray(array))) for array in photographs])
    codes = segmenter.codes(batch)
    assert codes.shape == (2, 32, 6, 9)
    assert not codes.requires_grad
    assert torch.allclose(codes, segmenter(batch), atol=1e-5)
    averaged = (segmenter(batch) + segmenter(batch.flip(3)).flip(3)) / 2
    assert torch.allclose(segmenter.codes(batch, flip=True), averaged, atol=1e-5)
    assert torch.allclose(segmenter.codes(photographs), codes, atol=1e-5)
    assert segmenter.codes(batch[:, :, :45]).shape == (2, 32, 6, 9), "padded to whole patches"
    for wrong in (batch[0], batch.byte(), batch[:0]):
        with pytest.raises(DataError, match="pass B×3×H×W, floating point"):
            segmenter.codes(wrong)
    with pytest.raises(DataError, match="at one size, not 2: 48×60, 72×48"):
        segmenter.codes([photographs[0], picture(0, (48, 60))])


@pytest.mark.parametrize(
    "values", [{"device": "gpu9"}, {"device": "cuda:x"}, {"precision": "12-true"}, {"precision": "64-true"}]
)
def test_load_segmenter__missing_device_or_precision_is_one_line(checkpoint, values):
    with pytest.raises(ConfigError) as error:
        load_segmenter(checkpoint, **values)
    assert next(iter(values.values())) in str(error.value)
    assert "\n" not in str(error.value)


def test_hub__loads_from_a_local_clone(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    loaded = torch.hub.load(str(ROOT), "eagle", source="local", checkpoint=str(checkpoint), device="cpu")
    assert loaded.segment(picture(0)).names == ("sky", "ground")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        torch.hub.load(str(ROOT), "eagle", source="local", checkpoint=str(tmp_path / "nowhere.ckpt"))
