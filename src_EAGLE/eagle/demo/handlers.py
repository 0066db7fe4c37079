"""What happens when a visitor uses the page; mistakes become messages."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from eagle.config.refinement import RECOMMENDED, refinement_of_name
from eagle.data.datasets.base import Classes, name_lines
from eagle.data.images import read_photograph, read_size
from eagle.data.labels import NO_CLASS, NO_CLASS_NAME, ClassMap, colored, distinct_palette
from eagle.data.named_files import bundled_photographs
from eagle.demo.pictures import annotated, gallery, one_line_name, parcel, segments
from eagle.errors import DataError, EagleError, one_line
from eagle.figures.grids import eigenvector_colors
from eagle.inference.photograph import PhotographSegmenter, whole_patch_input
from eagle.inference.segmentation import Legend, Segmentation
from eagle.inference.segmenter import Segmenter
from eagle.models.cluster_tree import ClusterCut, ClusterTree

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 32_000_000
# Offered short sides of the model's input, relative to the resolution of the run's evaluation.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
THUMBNAIL = (144, 96)

NONE_CHOSEN = "Click a cluster in the list first."

# The visitor's names by class id.
Names = dict[int, str]


@dataclass(frozen=True)
class Shown:
    """What a visitor looks at: a name, an RGB photograph, its codes at ``res`` (1×dim×h×w), and its segmentation."""

    name: str
    image: Image.Image
    res: int = 0
    code: Tensor | None = None
    result: Segmentation | None = None


@dataclass(frozen=True)
class Groups:
    """A visitor's clusters.

    Attributes:
        classes: names and colours.
        of_leaf: the class id of each leaf (without a tree: of each cluster); clusters without a class have negative ids
            of their own, and to the visitor all are ``NO_CLASS``.
        chosen: the id clicked.
        n_cut: number of classes of the cut that was last made; further ones were made by hand.
        aside: the visitor's names by ids of the other kind: of an evaluation's classes, or of clusters.
    """

    classes: Classes
    of_leaf: list[int]
    chosen: int | None = None
    n_cut: int = 0
    aside: Names = field(default_factory=dict)

    def name(self, names: Names, i: int) -> str:
        """What the visitor calls a class."""
        return one_line_name(names.get(max(i, NO_CLASS)) or (NO_CLASS_NAME if i < 0 else self.classes.names[i]))

    def joined(self, names: Names, moved: int | None = None) -> list[int]:
        """``of_leaf`` with one id for each name, as files of names have: the lowest, or not ``moved``."""
        ids = sorted(set(self.of_leaf), key=lambda i: (i != moved, -i))
        kept = {self.name(names, i): i for i in ids}
        return [i if i < 0 and NO_CLASS not in names else kept[self.name(names, i)] for i in self.of_leaf]

    def chosen_leaves(self, names: Names) -> list[int]:
        """The leaves of the class that was clicked."""
        return [leaf for leaf, i in enumerate(self.joined(names)) if max(i, NO_CLASS) == self.chosen]


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
    def resolutions(self) -> list[int]:
        """Short sides in pixels that the page offers, multiples of the patch size."""
        default, patch_size = self.segmenter.cfg.val_res, self.segmenter.model.net.model.patch_size
        # At least four patches, which EiCue needs.
        return sorted({max(4, round(default * scale / patch_size)) * patch_size for scale in SCALES} | {default})

    def thumbnails(self) -> list[dict[str, Any]]:
        """The bundled photographs as a gallery."""
        return gallery([(path.stem, ImageOps.fit(read_photograph(path), THUMBNAIL)) for path in bundled_photographs()])

    def uploaded(self, file: dict[str, Any]) -> Shown:
        """Read an upload, a FileData as Gradio's browser client sends it."""
        name = Path(str(file["orig_name"])).name
        with _messages():
            return Shown(Path(name).stem, read_upload(Path(file["path"]), self.folder, name))

    def bundled(self, event: gr.SelectData) -> Shown:
        """Read the bundled photograph that was clicked."""
        path = bundled_photographs()[event.index]
        return Shown(path.stem, read_photograph(path))

    @property
    def tree(self) -> ClusterTree | None:
        """The checkpoint's tree of clusters."""
        return self.segmenter.model.cluster_tree

    @cached_property
    def clusters(self) -> tuple[int, int]:
        """Numbers of clusters at first and at most."""
        fitted = len(
            name_lines(self.cluster_names) if self.cluster_names else self.segmenter.model.cluster_probe.clusters
        )
        most = self.tree.n_leaves if self.tree else fitted
        return min(fitted, most), most

    def cut(self, n_clusters: float | None) -> Groups:
        """The clusters where the slider cuts the tree; without a tree, those of the probe.

        While a visitor types 16 beside the slider, it is at 1, below its range.
        """
        n_clusters = min(max(1, int(n_clusters or 1)), self.clusters[1])
        # Names of the checkpoint or of a file hold for the number of clusters that they were made for.
        fitted = n_clusters == self.clusters[0]
        where: dict[str, Any] = {"cluster_names": self.cluster_names} if fitted else {"n_clusters": n_clusters}
        cut = self.segmenter.photographs(refinement_of_name(RECOMMENDED), **where)
        clusters: list[int] = list(range(n_clusters))
        if self.tree and isinstance(cut.probe, ClusterCut):
            of_leaf = dict(zip(self.tree.leaf_of_centre.tolist(), cut.probe.groups.tolist(), strict=True))
            clusters = [of_leaf[leaf] for leaf in range(self.tree.n_leaves)]
        ids = cut.legend.ids(np.array(clusters)).tolist()
        of_classes = [NO_CLASS - cluster if i == NO_CLASS else i for i, cluster in zip(ids, clusters, strict=True)]
        return Groups(cut.legend.classes, of_classes, n_cut=len(cut.legend.classes))

    def moved(self, new: Groups, groups: Groups, names: Names) -> tuple[Groups, Names]:
        """A new cut, and the visitor's names for it; those that do not hold there return with the cut they hold at."""
        both = min(groups.n_cut, new.n_cut)
        made_by_hand = range(groups.n_cut, len(groups.classes))
        names = {i: name for i, name in names.items() if i not in made_by_hand}
        # Ids of an evaluation's classes are not those of clusters.
        if groups.classes.names[:both] == new.classes.names[:both]:
            return replace(new, aside=groups.aside), names
        return replace(new, aside=names), groups.aside

    def segmented(self, shown: Shown | None, groups: Groups, names: Names, res: int, refine: str) -> tuple[Any, Any]:
        """The photograph with its segmentation, and the picture of it; its codes are computed once at a resolution."""
        if shown is None:
            gr.Info("Applies to the photograph that you choose next.")
            return gr.skip(), gr.skip()
        model, machine = self.segmenter.model, self.segmenter.machine
        with _messages(f"{shown.name}: "):
            options: dict[str, Any] = {"res": res, "cluster_names": self.cluster_names}
            photographs = self.segmenter.photographs(refinement_of_name(refine), **options)
            if self.tree:
                ids, group = np.unique(groups.joined(names), return_inverse=True)
                class_map = ClassMap(groups.classes, {"cluster": np.maximum(ids, NO_CLASS).tolist()})
                legend = Legend(class_map, "cluster", len(ids), None)
                cut, legend = legend.joining(self.tree.leaf_probe().joined(group.tolist()))
                photographs = PhotographSegmenter(model, cut, legend, res, photographs.settings, machine)
            if shown.res != res:
                whole_patch_input(shown.image, res, model.net.model.patch_size)  # refuses what has too many patches
                shown = replace(shown, res=res, code=self.segmenter.codes(shown.image, res))
            (clusters,) = photographs.label_maps([photographs.prepare(shown.image)], shown.code)
        # A quarter of int64's memory; no data set has so many classes.
        ids = photographs.legend.ids(clusters).astype("int16")
        result = Segmentation(shown.image, ids, photographs.legend, shown.name)
        return replace(shown, result=result), _stage(result, names)

    def decomposed(self, shown: Shown | None, res: int) -> tuple[Any, Any]:
        """Galleries of the eigenvectors and of EiCue, as ``visualize_eigen.py`` draws them."""
        if shown is None:
            return gr.skip(), gr.skip()
        with _messages(f"{shown.name}: "):
            vectors, cue = self.segmenter.eigenvectors_and_cue(shown.image, res=res)
        photograph, (labels, ids) = ("Photograph", shown.image), np.unique(cue, return_inverse=True)
        pixels = Image.fromarray(colored(ids.reshape(cue.shape), distinct_palette(len(labels))))
        pictures = [(f"Eigenvector {n}", Image.fromarray(eigenvector_colors(v))) for n, v in enumerate(vectors, 1)]
        return gallery([photograph, *pictures]), gallery([photograph, (f"EiCue, {len(labels)} labels", pixels)])

    def pointed(self, shown: Shown | None, groups: Groups, names: Names, event: gr.SelectData) -> tuple[Groups, Any]:
        """Choose the class clicked in the legend; returns the field that renames it, too."""
        segment = segments(_result(shown), names)[event.index]
        return replace(groups, chosen=segment["id"]), gr.update(value=segment["name"], interactive=True)

    def partners(self, shown: Shown | None, groups: Groups, names: Names) -> Any:
        """The field with the photograph's clusters that the chosen one can join."""
        others = [segment["name"] for segment in segments(_result(shown), names) if segment["id"] != groups.chosen]
        return gr.update(choices=others, value=None, interactive=groups.chosen is not None)

    def split(self, shown: Shown | None, groups: Groups, names: Names, res: int, refine: str) -> tuple[Any, ...]:
        """Split the chosen cluster as the tree does: the larger part keeps id, name and colour.

        Returns:
            The clusters, their names, and ``segmented`` with them.
        """
        assert self.tree, "without a tree, the page has no such button"
        of_leaf, new = groups.joined(names), len(groups.classes)
        leaves = groups.chosen_leaves(names)
        if len(leaves) < 2:
            gr.Info("This cluster is a leaf of the tree: it has no parts." if leaves else NONE_CHOSEN)
            return (gr.skip(),) * 4
        smaller = self.tree.parts(leaves)[1]
        names = {i: name for i, name in names.items() if i != new}
        taken = {groups.name(names, i) for i in of_leaf}
        name = next(name for n in count(new) if (name := f"cluster {n}") not in taken)
        palette = np.vstack([groups.classes.palette, distinct_palette(new + 1)[new:]])
        parts = [new if leaf in smaller else i for leaf, i in enumerate(of_leaf)]
        groups = replace(groups, classes=Classes((*groups.classes.names, name), palette), of_leaf=parts)
        return groups, names, *self.segmented(shown, groups, names, res, refine)

    def renamed(
        self, text: str | None, shown: Shown | None, groups: Groups, names: Names, res: int, refine: str
    ) -> tuple[Any, ...]:
        """Rename the chosen cluster; with another one's name, it joins that one, and with none it has its old name.

        Returns:
            What ``split`` returns, and the chosen cluster's name.
        """
        if text is None:  # a list was left without a choice
            return (gr.skip(),) * 5
        chosen, text = groups.chosen, one_line_name(text)
        if chosen is None:
            gr.Info(NONE_CHOSEN)
            return (gr.skip(),) * 5
        named = {**names, chosen: text}
        joined = groups.joined(named, chosen)
        if joined == groups.joined(names) or not self.tree:
            return groups, named, gr.skip(), _stage(_result(shown), named), gr.skip()
        of_chosen = joined[groups.chosen_leaves(names)[0]]
        if of_chosen >= 0:
            del named[chosen]
        groups = replace(groups, of_leaf=joined, chosen=max(of_chosen, NO_CLASS))
        return groups, named, *self.segmented(shown, groups, named, res, refine), text

    def packed(self, shown: Shown | None, groups: Groups, names: Names, opacity: float) -> dict[str, str]:
        """The zip to download; with a tree, its names file has a line for each cluster of the finest cut."""
        clusters = self.tree.cluster_of_leaf(self.tree.n_leaves) if self.tree else []
        lines = {cluster: groups.name(names, i) for cluster, i in zip(clusters, groups.joined(names), strict=False)}
        return parcel(_result(shown), names, opacity, [lines[cluster] for cluster in sorted(lines)])


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


def _result(shown: Shown | None) -> Segmentation:
    if shown is None or shown.result is None:
        forgets = "The server forgets it when the page is closed, or after an hour."
        raise gr.Error(f"Choose a photograph first. {forgets}", print_exception=False)
    return shown.result


def _stage(result: Segmentation, names: Names) -> dict[str, Any]:
    value, colors = annotated(result, names)
    return gr.update(value=value, color_map=colors)


@contextmanager
def _messages(start: str = "") -> Iterator[None]:
    """Show what a visitor can mend as a message."""
    try:
        yield
    except EagleError as error:
        # Gradio renders messages as HTML, and this one has the visitor's file name.
        raise gr.Error(html.escape(start + one_line(error)), print_exception=False) from error
