"""The page without a browser: what visitors upload, see and download, and what the server refuses."""

import base64
import io
import json
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from conftest import ROOT, TINY_VIT
from eagle.cluster_fit import weighted_ward
from eagle.data.datasets.base import Classes
from eagle.data.labels import ClassMap, distinct_palette
from eagle.errors import DataError
from eagle.inference.segmentation import Legend, Segmentation
from eagle.inference.segmenter import Segmenter, load_segmenter
from eagle.models.cluster_tree import ClusterTree
from eagle.segmenter import LitUnsupervisedSegmenter
from typed import typed

pytest.importorskip("gradio")

from gradio import skip

from eagle.demo.handlers import MOST_BYTES, MOST_PIXELS, Handlers, Shown, read_upload
from eagle.demo.page import build_page
from eagle.demo.pictures import file_name, segments
from eagle.demo.server import Privacy

PALETTE = np.array([[10, 20, 30], [200, 0, 0]], dtype=np.uint8)


def segmentation(ids, name="a walk"):
    """With a third cluster that has no class."""
    ids = np.array(ids, dtype=np.int8)
    legend = Legend(ClassMap(Classes(("sky", "road"), PALETTE), {"cluster": [0, 1, -1]}), "cluster", 3, None)
    return Segmentation(Image.new("RGB", ids.shape[::-1], (100, 100, 100)), ids, legend, name)


def saved(folder, image, name="0a1b", **options):
    folder.mkdir(exist_ok=True)
    image.save(folder / name, **options)
    return folder / name


def test_upload__is_upright_rgb_and_its_file_is_gone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    path = saved(tmp_path, Image.new("RGB", (30, 20), "red"), format="JPEG", exif=exif)
    photograph = read_upload(path, tmp_path, "me.jpg")
    assert (photograph.size, photograph.mode) == ((20, 30), "RGB")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a, or so it says", "cannot be read as an image"),
        (b"0" * (MOST_BYTES + 1), "32 MB"),
    ],
)
def test_upload__unusable_names_the_visitors_file_and_is_gone(tmp_path, content, message):
    path = tmp_path / "0a1b"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_upload(path, tmp_path, "my photo.jpg")
    assert str(error.value).startswith("my photo.jpg: ")
    assert str(tmp_path) not in str(error.value)
    assert not path.exists()


def test_upload__with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    side = int(MOST_PIXELS**0.5) + 1
    path = saved(tmp_path, Image.new("1", (side, side)), format="PNG")
    monkeypatch.setattr("eagle.demo.handlers.read_photograph", lambda _: pytest.fail("decoded"))
    with pytest.raises(DataError, match=f"x: {side}×{side} pixels are more than 32 million"):
        read_upload(path, tmp_path, "x")


def test_upload__outside_its_folder_is_neither_read_nor_deleted(tmp_path):
    secret = saved(tmp_path / "home", Image.new("RGB", (9, 9)), "secret", format="PNG")
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    for path in (secret, uploads / ".." / "home" / "secret"):
        with pytest.raises(DataError, match="not an uploaded file"):
            read_upload(path, uploads, "x")
    (uploads / "link").symlink_to(secret)
    with pytest.raises(DataError, match="not an uploaded file"):
        read_upload(uploads / "link", uploads, "x")
    assert secret.exists()


def test_segments__have_names_colours_and_shares_by_size():
    assert segments(segmentation([[1, 1, 1], [0, 0, -1]]), {0: "Himmel", 1: ""}) == [
        {"id": 1, "name": "road", "color": "#c80000", "share": 0.5},
        {"id": 0, "name": "Himmel", "color": "#0a141e", "share": 0.333333},
        {"id": -1, "name": "no class", "color": "#000000", "share": 0.166667},
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("../../etc/passwd", "etc_passwd"), ("Würzburg 1", "Würzburg_1"), ("***", "photograph")],
)
def test_file_name__is_safe(given, expected):
    assert file_name(given) == expected


def test_privacy__refuses_routes_and_tells_the_browser_to_ask_no_other_address():
    from starlette.responses import HTMLResponse
    from starlette.testclient import TestClient

    client = TestClient(Privacy(HTMLResponse("<p>")))
    answer = client.get("/")
    assert answer.text == "<p>"
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    refused = ["file=/etc/passwd", "file=https://example.com", "proxy=https://x.hf.space", "runs", "openapi.json"]
    for route in [*(f"/gradio_api/{name}" for name in refused), "/monitoring", "/svelte/x", "/assets/../config"]:
        assert client.get(route).status_code == 404 or route.startswith("/assets"), route


def write_checkpoint(path):
    """With a tree of 32 random leaves, some of several centres."""
    torch.manual_seed(0)
    cfg = {"pretrained_weights": "random", "backbone_kwargs": TINY_VIT, "dim": 32, "val_res": 64}
    trained, centres = LitUnsupervisedSegmenter(6, cfg), torch.randn(40, 32)
    areas, merges = torch.arange(1.0, 41), torch.from_numpy(weighted_ward(centres.numpy(), np.ones(40)))
    trained.cluster_tree = ClusterTree(centres, areas, merges).pruned(32)
    torch.save({"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.ckpt")


class Visitor:
    """Looks at a photograph, and keeps what the page's states keep."""

    def __init__(self, handlers, image):
        self.handlers, self.names, self.groups = handlers, {}, handlers.cut(handlers.clusters[0])
        self.shown = handlers.segmented(Shown("photo", image), self.groups, {}, 64, "none")[0]

    @property
    def settings(self):
        return self.shown, self.groups, self.names, 64, "none"

    @property
    def result(self):
        return self.shown.result

    def choose(self, chosen):
        self.groups = replace(self.groups, chosen=chosen)

    def took(self, groups, names, shown, _stage, *_):
        self.groups, self.names = groups, names
        self.shown = shown if isinstance(shown, Shown) else self.shown

    def split(self, chosen):
        self.choose(chosen)
        self.took(*self.handlers.split(*self.settings))

    def rename(self, chosen, text):
        self.choose(chosen)
        self.took(*self.handlers.renamed(text, *self.settings))

    def named_pixels(self):
        """The name that the page shows at each pixel."""
        shown = {segment["id"]: segment["name"] for segment in segments(self.result, self.names)}
        return np.vectorize(shown.get)(self.result.ids)

    def download(self):
        url = self.handlers.packed(self.shown, self.groups, self.names, 0.5)["url"]
        return zipfile.ZipFile(io.BytesIO(base64.b64decode(url.split(",")[1])))


@pytest.fixture
def image():
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((192, 128), Image.Resampling.NEAREST)


def test_by_hand__a_split_is_the_trees_and_a_join_takes_the_others_id_name_and_colour(checkpoint, image, tmp_path):
    segmenter = load_segmenter(checkpoint, device="cpu")
    visitor, tree = Visitor(Handlers(segmenter, None, tmp_path), image), segmenter.model.cluster_tree
    for n in range(visitor.handlers.clusters[0], 17):  # by hand, as the slider does it
        coarse, fine = tree.cluster_of_leaf(n), tree.cluster_of_leaf(n + 1)
        visitor.split(next(i for i, j in zip(coarse, fine, strict=True) if i != j))
        assert visitor.groups.of_leaf == fine
        assert (visitor.result.ids == segmenter.segment(image, n_clusters=n + 1, refine="none").ids).all()
        assert (visitor.result.palette == distinct_palette(n + 1)).all()
    first, second, *_ = np.unique(visitor.result.ids).tolist()
    before = visitor.result.ids
    visitor.rename(second, "sky")
    visitor.rename(first, " sky ")
    assert (visitor.result.ids == second)[before == first].all()
    assert "sky" in visitor.named_pixels()[before == second]
    both = {leaf for leaf, i in enumerate(visitor.groups.of_leaf) if i == second}
    assert both == {leaf for leaf, i in enumerate(fine) if i in (first, second)}
    assert visitor.names == {second: "sky"}
    assert set(visitor.handlers.cut(None).of_leaf) == {0}, "the number beside the slider is being typed"
    visitor.groups = visitor.handlers.cut(4)  # the slider
    visitor.rename(0, "")
    assert (
        visitor.handlers.segmented(*visitor.settings)[0].result.ids
        == segmenter.segment(image, n_clusters=4, refine="none").ids
    ).all()


def test_slider__keeps_the_names_of_clusters_that_both_cuts_have(checkpoint, image, tmp_path):
    visitor = Visitor(Handlers(load_segmenter(checkpoint, device="cpu"), None, tmp_path), image)
    handlers, n = visitor.handlers, visitor.handlers.clusters[0]
    visitor.rename(0, "sky")
    visitor.split(visitor.groups.of_leaf[0])
    part = len(visitor.groups.classes) - 1
    visitor.rename(part, "bicycle")
    assert visitor.names == {0: "sky", part: "bicycle"}
    for n_clusters in (n + 1, n - 1):
        groups, names = handlers.moved(handlers.cut(n_clusters), visitor.groups, visitor.names)
        assert (groups.n_cut, names) == (n_clusters, {0: "sky"}), "the part's number is another cluster's elsewhere"
    fine, coarse, named = handlers.cut(n + 3), handlers.cut(n), {0: "sky", n + 2: "hoof"}
    assert handlers.moved(fine, *handlers.moved(coarse, fine, named))[1] == named, "the name returns with its cluster"
    (tmp_path / "names.txt").write_text("".join(f"thing {i}\n" for i in range(n)))
    handlers = Handlers(handlers.segmenter, tmp_path / "names.txt", tmp_path)
    moved, names = handlers.moved(handlers.cut(n + 1), handlers.cut(n), {0: "sky"})
    assert names == {}, "ids of classes, of clusters"
    assert handlers.moved(handlers.cut(n), moved, {1: "sea"})[1] == {0: "sky"}


def test_join__left_without_a_choice_changes_nothing(checkpoint, image, tmp_path):
    visitor = Visitor(Handlers(load_segmenter(checkpoint, device="cpu"), None, tmp_path), image)
    visitor.choose(0)
    changes = visitor.handlers.renamed(None, *visitor.settings)
    assert changes == (skip(),) * 5


def test_clusters_without_a_class__stay_apart_and_hide_no_class(checkpoint, image, tmp_path):
    """In the page as in Python; one name for all of them joins them."""
    segmenter = load_segmenter(checkpoint, device="cpu")
    plain = segmenter.segment(image, refine="none").ids
    largest, n_clusters = int(np.bincount(plain.ravel()).argmax()), len(segmenter.model.cluster_probe.clusters)
    lines = ["thing" if i == largest else "" for i in range(n_clusters)]
    (tmp_path / "names.txt").write_text("\n".join(lines) + "\n")
    ids = segmenter.segment(image, refine="none", cluster_names=tmp_path / "names.txt").ids
    np.testing.assert_array_equal(ids, np.where(plain == largest, 0, -1))
    visitor = Visitor(Handlers(segmenter, tmp_path / "names.txt", tmp_path), image)
    np.testing.assert_array_equal(visitor.result.ids, ids)
    visitor.rename(-1, "rest")
    (tmp_path / "rest.txt").write_text("\n".join(line or "rest" for line in lines) + "\n")
    joined = segmenter.segment(image, refine="none", cluster_names=tmp_path / "rest.txt")
    assert (visitor.named_pixels() == np.array(joined.names)[joined.ids]).all()
    visitor.split(-1)
    visitor.rename(-1, "thing")
    assert set(visitor.named_pixels().ravel()) <= {"thing", "cluster 1"}


def test_by_hand__the_downloaded_names_file_gives_the_same_masks_in_the_command(checkpoint, image, tmp_path):
    visitor = Visitor(Handlers(load_segmenter(checkpoint, device="cpu"), None, tmp_path), image)
    of_leaf = visitor.groups.of_leaf
    *others, small, large = sorted(np.unique(visitor.result.ids).tolist(), key=of_leaf.count)
    for text in ("grass & sons", "Straße"):
        visitor.split(large)
        visitor.rename(large, text)
    visitor.rename(small, visitor.result.names[others[0]])
    assert small not in visitor.result.ids
    with visitor.download() as files:
        (tmp_path / "names.txt").write_bytes(files.read("names.txt"))
    image.save(tmp_path / "photo.png")
    words = [
        f"checkpoint={checkpoint}",
        f"cluster_names={tmp_path}/names.txt",
        f"output_dir={tmp_path}/out",
        "refine=none",
    ]
    run = typed(ROOT / "src_EAGLE" / "segment_images.py", tmp_path / "photo.png", *words, "accelerator=cpu")
    assert run.returncode == 0, run.stderr
    names = json.loads((tmp_path / "out" / "segments.json").read_text())["classes"]
    ids = np.array(Image.open(tmp_path / "out" / "photo_ids.png"))
    assert (np.array([entry["name"] for entry in names])[ids] == visitor.named_pixels()).all()
    again = Visitor(Handlers(load_segmenter(checkpoint, device="cpu"), tmp_path / "names.txt", tmp_path), image)
    assert (again.named_pixels() == visitor.named_pixels()).all(), "the page takes its own file, too"


@pytest.fixture
def page(tmp_path):
    from gradio.state_holder import StateHolder

    cfg = {"pretrained_weights": "random", "backbone_kwargs": TINY_VIT, "dim": 32, "val_res": 64}
    segmenter = Segmenter(LitUnsupervisedSegmenter(3, cfg), None, Fabric(accelerator="cpu", devices=1))
    built = build_page(Handlers(segmenter, None, tmp_path), "last.ckpt")
    StateHolder().set_blocks(built)
    return built


def test_closed_page__is_forgotten_at_once(page):
    import gradio as gr

    state = next(block for block in page.blocks.values() if isinstance(block, gr.State))
    for visitor in ("leaves", "stays"):
        page.state_holder[visitor][state._id] = f"photograph of who {visitor}"
    (forget,) = (fn.fn for fn in page.fns.values() if any(event == "unload" for _, event in fn.targets))
    forget(SimpleNamespace(session_hash="leaves"))
    assert page.state_holder["leaves"][state._id] is None
    assert page.state_holder["stays"][state._id] == "photograph of who stays"
