"""What happens when a visitor uses the page; mistakes become messages."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast

import gradio as gr
import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from eagle.config.refinement import RECOMMENDED, refinement_of_name
from eagle.data.datasets.base import Classes, name_lines
from eagle.data.images import read_photograph, read_size
from eagle.data.labels import NO_CLASS, NO_CLASS_NAME, colored, distinct_palette
from eagle.data.named_files import bundled_photographs
from eagle.demo.pictures import annotated, gallery, one_line_name, parcel, segments
from eagle.errors import DataError, EagleError, one_line
from eagle.figures.grids import eigenvector_colors
from eagle.inference.decomposition import whole_patch_input
from eagle.inference.segmentation import Segmentation
from eagle.inference.segmenter import Segmenter
from eagle.models.cluster_tree import ClusterCut

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 32_000_000
# Offered short sides of the model's input, relative to the resolution of the run's evaluation.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
THUMBNAIL = (144, 96)

NONE_CHOSEN = "Click a cluster in the list first."

Names = dict[int, str]
# Classes, and the class id of each leaf of the tree of clusters.
LeafClasses = tuple[Classes, list[int]]


class Photograph(NamedTuple):
    """What a visitor has chosen: a name and an RGB image."""

    name: str
    image: Image.Image


class Codes(NamedTuple):
    """A photograph's codes, 1×dim×h×w, and the short side in pixels at the model's input."""

    res: int
    code: Tensor


@dataclass(frozen=True)
class Handlers:
    """What the components call; all that is kept of a visitor is in the arguments and results.

    Attributes:
        segmenter: from ``load_segmenter``.
        cluster_names: file of names, see ``Segmenter.segment``; None for the checkpoint's.
        folder: where uploads arrive.
    """

    segmenter: Segmenter
    cluster_names: Path | None
    folder: Path

    @property
    def default_resolution(self) -> int:
        """The resolution of the run's evaluation."""
        return int(self.segmenter.cfg.val_res)

    @property
    def patch_size(self) -> int:
        """Side of the model's patches in pixels."""
        return int(self.segmenter.model.net.model.patch_size)

    @property
    def resolutions(self) -> list[tuple[str, int]]:
        """Short sides in pixels that the page offers, with their labels; multiples of the patch size."""
        default, patch_size = self.default_resolution, self.patch_size
        # At least four patches, which EiCue needs.
        sizes = {max(4, round(default * scale / patch_size)) * patch_size for scale in SCALES} | {default}
        return [(f"{size} (default)" if size == default else str(size), size) for size in sorted(sizes)]

    def check(self) -> None:
        """Segment a blank picture: an unusable file of names or device is known before the first visitor comes."""
        self.segmenter.segment(Image.new("RGB", (9, 9)), res=self.resolutions[0][1], cluster_names=self.cluster_names)

    def thumbnails(self) -> list[dict[str, Any]]:
        """The bundled photographs as a gallery."""
        return gallery([(path.stem, ImageOps.fit(read_photograph(path), THUMBNAIL)) for path in bundled_photographs()])

    def uploaded(self, file: dict[str, Any]) -> tuple[Photograph, None]:
        """Read an upload, a FileData as Gradio's browser client sends it; its codes are not there yet."""
        name = Path(str(file["orig_name"])).name
        with _messages():
            return Photograph(Path(name).stem, read_upload(Path(file["path"]), self.folder, name)), None

    def bundled(self, event: gr.SelectData) -> tuple[Photograph, None]:
        """Read the bundled photograph that was clicked; its codes are not there yet."""
        path = bundled_photographs()[event.index]
        return Photograph(path.stem, read_photograph(path)), None

    @cached_property
    def clusters(self) -> tuple[int, int]:
        """Numbers of clusters at first and at most."""
        model = self.segmenter.model
        fitted = len(name_lines(self.cluster_names) if self.cluster_names else model.cluster_probe.clusters)
        most = model.cluster_tree.n_leaves if model.cluster_tree else fitted
        return min(fitted, most), most

    def coded(self, photograph: Photograph | None, res: int) -> Any:
        """The photograph's codes and their resolution, from which it is segmented at any number of clusters."""
        if photograph is None:
            return gr.skip()
        with _messages():
            whole_patch_input(photograph.image, res, self.patch_size)  # refuses what has too many patches
            return Codes(res, self.segmenter.codes(photograph.image, res))

    def cut(self, n_clusters: float | None) -> LeafClasses | None:
        """The tree's clusters where the slider cuts it; None without a tree.

        While a visitor types 16 beside the slider, it is at 1, below its range.
        """
        if self.segmenter.model.cluster_tree is None:
            return None
        n_clusters = min(max(1, int(n_clusters or 1)), self.clusters[1])
        # Names of the checkpoint or of a file hold for the number of clusters that they were made for.
        fitted = n_clusters == self.clusters[0]
        where: dict[str, Any] = {"cluster_names": self.cluster_names} if fitted else {"n_clusters": n_clusters}
        cut = self.segmenter.photographs(refinement_of_name(RECOMMENDED), **where)
        return cut.legend.classes, cut.legend.ids(cast(ClusterCut, cut.probe).groups.cpu().numpy()).tolist()

    def segmented(
        self, photograph: Photograph | None, codes: Codes | None, refine: str, cut: LeafClasses | None, names: Names
    ) -> tuple[Any, Any]:
        """The segmentation and the picture of it."""
        if photograph is None or codes is None:
            gr.Info("Applies to the photograph that you choose next.")
            return gr.skip(), gr.skip()
        res, code = codes
        with _messages():
            options: dict[str, Any] = {"cluster_names": self.cluster_names}
            if cut is not None:
                options = {"leaf_classes": _joined(cut, names)}
            result = self.segmenter.segment_codes(photograph.image, code, res=res, refine=refine, **options)
        # A quarter of int64's memory; no data set has so many classes.
        result = replace(result, name=photograph.name, ids=result.ids.astype("int16"))
        return result, _stage(result, names)

    def decomposed(self, photograph: Photograph | None, res: int) -> tuple[Any, Any]:
        """Galleries of the eigenvectors and of EiCue, as ``visualize_eigen.py`` draws them."""
        if photograph is None:
            return gr.skip(), gr.skip()
        with _messages():
            vectors, cue = self.segmenter.eigenvectors_and_cue(photograph.image, res=res)
        shown, (labels, ids) = ("Photograph", photograph.image), np.unique(cue, return_inverse=True)
        pixels = colored(ids.reshape(cue.shape), distinct_palette(len(labels)))
        pictures = [(f"Eigenvector {n}", Image.fromarray(eigenvector_colors(v))) for n, v in enumerate(vectors, 1)]
        return gallery([shown, *pictures]), gallery([shown, (f"EiCue, {len(labels)} labels", Image.fromarray(pixels))])

    def pointed(self, result: Segmentation | None, names: Names, event: gr.SelectData) -> tuple[int, Any]:
        """The id of the class clicked in the legend, and the field that renames it."""
        segment = segments(_kept(result), names)[event.index]
        return segment["id"], gr.update(value=segment["name"], interactive=True)

    def partners(self, result: Segmentation | None, names: Names, chosen: int | None) -> Any:
        """The field with the photograph's clusters that the chosen one can join."""
        others = [segment["name"] for segment in segments(_kept(result), names) if segment["id"] != chosen]
        return gr.update(choices=others, value=None, interactive=chosen is not None)

    def split(self, chosen: int | None, *settings: Any) -> tuple[Any, ...]:
        """Split the chosen cluster as the tree does: the larger part keeps id, name and colour.

        Returns:
            The clusters, their names, and ``segmented`` with them.
        """
        photograph, codes, refine, cut, names = settings
        tree = self.segmenter.model.cluster_tree
        assert tree, "without a tree, the page has no such button"
        classes, of_leaf = _joined(cut, names)
        leaves = [leaf for leaf, i in enumerate(of_leaf) if i == chosen]
        if len(leaves) < 2:
            gr.Info("This cluster is a leaf of the tree: it has no parts." if leaves else NONE_CHOSEN)
            return (gr.skip(),) * 4
        new, smaller = len(classes), tree.parts(leaves)[1]
        names = {i: name for i, name in names.items() if i != new}
        taken = {_name(classes, names, i) for i in of_leaf}
        name = next(name for n in count(new) if (name := f"cluster {n}") not in taken)
        classes = Classes((*classes.names, name), np.vstack([classes.palette, distinct_palette(new + 1)[new:]]))
        cut = classes, [new if leaf in smaller else i for leaf, i in enumerate(of_leaf)]
        return cut, names, *self.segmented(photograph, codes, refine, cut, names)

    def renamed(self, chosen: int | None, text: str, result: Segmentation | None, *settings: Any) -> tuple[Any, ...]:
        """Rename the chosen cluster; with another one's name, it joins that one, and with none it has its old name.

        Returns:
            What ``split`` returns, the id that is chosen now, and its name.
        """
        photograph, codes, refine, cut, names = settings
        if chosen is None:
            gr.Info(NONE_CHOSEN)
            return (gr.skip(),) * 6
        text = one_line_name(text)
        named = {**names, chosen: text}
        if cut is not None:
            (_, before), joined = _joined(cut, names), _joined(cut, named, chosen)
            if joined[1] != before:
                del named[chosen]
                segmented = self.segmented(photograph, codes, refine, joined, named)
                return joined, named, *segmented, joined[1][before.index(chosen)], text
        return cut, named, gr.skip(), _stage(_kept(result), named), chosen, gr.skip()

    def packed(
        self, result: Segmentation | None, opacity: float, cut: LeafClasses | None, names: Names
    ) -> dict[str, str]:
        """The zip to download; with a tree, its names file has a line for each cluster of the finest cut."""
        lines, tree = {}, self.segmenter.model.cluster_tree
        if cut and tree:
            classes, of_leaf = _joined(cut, names)
            name_of_leaf = [_name(classes, names, i) for i in of_leaf]
            lines = dict(zip(tree.cluster_of_leaf(tree.n_leaves), name_of_leaf, strict=True))
        return parcel(_kept(result), names, opacity, [lines[cluster] for cluster in sorted(lines)])


def read_upload(path: Path, folder: Path, name: str) -> Image.Image:
    """Read an uploaded photograph, upright, and delete its file, readable or not.

    Args:
        path: the file, as the browser names it; it may name anything.
        folder: the folder of uploads, the only one that is read.
        name: the visitor's name of the file, for messages.

    Returns:
        RGB.

    Raises:
        DataError: the file lies elsewhere, is missing, too large or not a readable photograph.
    """
    path = path.resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"{name}: not an uploaded file")
    try:
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            raise DataError(f"{name}: more than {MOST_BYTES // 2**20} MB; save it smaller or as JPEG")
        width, height = read_size(path)
        if width * height > MOST_PIXELS:
            most = f"{MOST_PIXELS // 10**6} million"
            raise DataError(f"{name}: {width}×{height} pixels are more than {most}; make the picture smaller")
        return read_photograph(path)
    except DataError as error:
        raise DataError(str(error).replace(str(path), name)) from error
    finally:
        path.unlink(missing_ok=True)


def _kept(result: Segmentation | None) -> Segmentation:
    if result is None:
        forgets = "The server forgets it when the page is closed, or after an hour."
        raise gr.Error(f"Choose a photograph first. {forgets}", print_exception=False)
    return result


def _name(classes: Classes, names: Names, i: int) -> str:
    return one_line_name(names.get(i) or (NO_CLASS_NAME if i == NO_CLASS else classes.names[i]))


def _joined(leaf_classes: LeafClasses, names: Names, moved: int | None = None) -> LeafClasses:
    """Make clusters of one name one, as files of names do; ``moved`` takes another's id, else the lowest is kept."""
    classes, of_leaf = leaf_classes
    kept = {_name(classes, names, i): i for i in sorted(set(of_leaf), key=lambda i: (i != moved, -i))}
    return classes, [kept[_name(classes, names, i)] for i in of_leaf]


def _stage(result: Segmentation, names: Names) -> dict[str, Any]:
    value, colors = annotated(result, names)
    return gr.update(value=value, color_map=colors)


@contextmanager
def _messages() -> Iterator[None]:
    """Show what a visitor can mend as a message."""
    try:
        yield
    except EagleError as error:
        # Gradio renders messages as HTML, and this one has the visitor's file name.
        raise gr.Error(html.escape(one_line(error)), print_exception=False) from error
