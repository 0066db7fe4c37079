"""Draw eigenvectors, EiCue, k-means of the keys and final clusters of images, as in the paper's figure."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from eagle.config.refinement import refinement_of_name
from eagle.config.schema import BackboneConfig, DatasetConfig
from eagle.config.validation import check_resolution, with_overrides
from eagle.data.datasets.catalog import open_dataset
from eagle.data.images import read_photograph
from eagle.data.labels import NO_CLASS_NAME, colored, distinct_palette, write_colored_ids, write_image
from eagle.data.named_files import bundled_photographs, named_files, output_names
from eagle.errors import ConfigError, DataError
from eagle.figures.confusion import write_figure
from eagle.figures.grids import PANEL_INCHES, Panel, class_legend, eigenvector_colors, panel_grid
from eagle.inference.decomposition import Decomposition, decompose, decompose_keys, input_of_size, whole_patch_size
from eagle.inference.photograph import PhotographSegmenter
from eagle.inference.segmentation import Legend
from eagle.inference.segmenter import open_segmenter
from eagle.models.backbone import build_backbone

# Without a checkpoint; rounded to whole patches.
DEFAULT_RES = 320
# Last part of a label map's file name → its title in the figure.
MAP_TITLES = {"eicue": "EiCue", "kmeans": "k-means of keys", "clusters": "final clusters"}

# The name of an image, unique, and what reads it; raises DataError naming the file.
NamedImage = tuple[str, Callable[[], Image.Image]]

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What was drawn: files of the figures, images in them, images named, and one line for each unreadable image."""

    grids: list[Path]
    n_shown: int
    n_named: int
    unreadable: list[str]


@dataclass(frozen=True)
class EigenPanels:
    """The panels of one photograph.

    Attributes:
        image: the whole photograph at the size of the panels' files.
        decomposition: eigenvectors and label maps on the grid of patches.
        maps: ids and palette of each label map, by the keys of MAP_TITLES; final clusters only with a checkpoint.
    """

    image: Image.Image
    decomposition: Decomposition
    maps: dict[str, tuple[np.ndarray, np.ndarray]]

    def by_title(self) -> dict[str, Panel]:
        """The panels as drawn in a figure, in the paper's order."""
        panels: dict[str, Panel] = {"image": self.image}
        for number, values in enumerate(self.decomposition.eigenvectors, start=1):
            panels[f"eigenvector {number}"] = eigenvector_colors(values)
        return panels | {MAP_TITLES[kind]: colored(ids, palette) for kind, (ids, palette) in self.maps.items()}

    def write(self, folder: Path, name: str) -> None:
        """Write ``NAME_image.png``, ``NAME_eigenvector_1.png`` … and a palette PNG of the ids of each label map."""
        write_image(folder / f"{name}_image.png", np.asarray(self.image))
        for number, values in enumerate(self.decomposition.eigenvectors, start=1):
            colors = Image.fromarray(eigenvector_colors(values))
            write_image(folder / f"{name}_eigenvector_{number}.png", self._enlarged(colors))
        for kind, (ids, palette) in self.maps.items():
            enlarged = self._enlarged(Image.fromarray(ids.astype(np.int32)))
            write_colored_ids(folder / f"{name}_{kind}.png", enlarged, palette)

    def _enlarged(self, values: Image.Image) -> np.ndarray:
        return np.asarray(values.resize(self.image.size, Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Viewer:
    """Callable that decomposes and segments a photograph, with a trained checkpoint or a bare backbone.

    Attributes:
        cfg: a validated VisualizeConfig.
        decompose: see ``eagle.inference.decomposition``.
        note: says how it computes the Laplacian and EiCue.
        patch_size: side of a patch in pixels.
        res: short side of the model input in pixels, a multiple of the patch size.
        fabric: device and precision.
        photographs: computes final clusters as segment_images.py does; None for a bare backbone.
        legend: names and colours of the final clusters.
        trained_on: configuration of the segmenter.
    """

    cfg: DictConfig
    decompose: Callable[[Tensor, DictConfig], Decomposition]
    note: str
    patch_size: int
    res: int
    fabric: Fabric
    photographs: PhotographSegmenter | None = None
    legend: Legend | None = None
    trained_on: DictConfig | None = None

    def __call__(self, photograph: Image.Image) -> EigenPanels:
        """Decompose and segment an RGB photograph of any size.

        The whole photograph is resized: short side to ``res``, long side to the nearest multiple of the patch size. The
        aspect changes by at most half a patch.

        Raises:
            DataError: the photograph is so long that it has too many patches.
        """
        seen = whole_patch_size(photograph, self.res, self.patch_size)
        width, height = (side * self.cfg.panel_scale for side in seen)
        with self.fabric.autocast():
            found = self.decompose(self.fabric.to_device(input_of_size(photograph, seen)), self.cfg)
        palette = distinct_palette(1 + int(max(found.cue.max(), found.kmeans.max())))
        maps = {"eicue": (found.cue, palette), "kmeans": (found.kmeans, palette)}
        if self.photographs is not None and self.legend is not None:
            ids = self.legend.ids(self.photographs(photograph, (height, width)))
            maps["clusters"] = ids, self.legend.classes.palette
        # Smoothly, unlike the model's input.
        return EigenPanels(photograph.resize((width, height), Image.Resampling.LANCZOS), found, maps)

    def named(self, name: str, photograph: Image.Image) -> EigenPanels:
        """The panels of a photograph, written too if the configuration says so; errors start with its name."""
        try:
            panels = self(photograph)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        if self.cfg.panels:
            panels.write(Path(self.cfg.output_dir), name)
        return panels


def visualize(cfg: DictConfig) -> Outcome:
    """Write figures of all images that a configuration names, and with ``panels`` also every panel as a file.

    Writes ``grid.png``, or ``grid_1.png`` and so on for more than ``rows_per_grid`` images; for the panels' files see
    ``EigenPanels``. Holds the images of one figure at a time. Images that cannot be read are logged at the end.

    Args:
        cfg: a validated VisualizeConfig.

    Raises:
        CheckpointError, ConfigError, DataError, WeightsError: there is nothing to show at all.
    """
    named = named_images(cfg)
    if not named and cfg.checkpoint is None:
        raise ConfigError("images: name images or folders, set bundled=true, or name a dataset (dir_dataset_name)")
    viewer = open_viewer(cfg)
    if not named and (run := viewer.trained_on) is not None:
        is_here = Path(run.pytorch_data_dir).is_dir()
        source = run if is_here else with_overrides(run, pytorch_data_dir=cfg.pytorch_data_dir)
        named = _dataset_images(source, cfg.split)
    images = spread(named, cfg.max_images)
    paths = _grid_paths(Path(cfg.output_dir), -(-len(images) // cfg.rows_per_grid))
    grids: list[Path] = []
    rows: dict[str, EigenPanels] = {}
    unreadable: list[str] = []
    for number, (name, read) in enumerate(tqdm(images, "images", unit="image"), start=1):
        try:
            rows[name] = viewer.named(name, read())
        except DataError as error:
            unreadable.append(str(error))
        if rows and (len(rows) == cfg.rows_per_grid or number == len(images)):
            grids.append(paths[len(grids)])
            _draw(grids[-1], rows, viewer)
            rows = {}
    for line in unreadable:
        logger.warning("left out: %s", line)
    if not grids:
        raise DataError(f"none of {len(images)} images could be read, see above")
    return Outcome(grids, len(images) - len(unreadable), len(named), unreadable)


def named_images(cfg: DictConfig) -> list[NamedImage]:
    """All images that a configuration names; empty if it names none.

    Args:
        cfg: with ``images``, ``bundled``, ``split`` and the keys of DatasetConfig.

    Raises:
        ConfigError: both files and a dataset are named.
        DataError: a file or the dataset is missing.
    """
    files = named_files(cfg.images) + (bundled_photographs() if cfg.bundled else [])
    names_dataset = cfg.dir_dataset_name is not None or cfg.dataset_name != DatasetConfig.dataset_name
    if files and names_dataset:
        raise ConfigError("images: name files or a dataset, not both")
    if names_dataset:
        return _dataset_images(cfg, cfg.split)
    return [(name, partial(read_photograph, path)) for path, name in zip(files, output_names(files), strict=True)]


def spread(images: list[NamedImage], n_max: int | None) -> list[NamedImage]:
    """Select at most ``n_max`` images at even distances; None selects all."""
    if n_max is None or n_max >= len(images):
        return images
    return [images[index] for index in np.linspace(0, len(images) - 1, n_max).round().astype(int).tolist()]


def open_viewer(cfg: DictConfig) -> Viewer:
    """Build the viewer of a configuration.

    Args:
        cfg: a validated VisualizeConfig.

    Raises:
        CheckpointError, ConfigError, WeightsError: a checkpoint, key or weights file is unusable.
    """
    fabric = Fabric(accelerator=cfg.accelerator, devices=1, precision=cfg.precision)
    viewer = _backbone_viewer(cfg, fabric) if cfg.checkpoint is None else _checkpoint_viewer(cfg, fabric)
    check_resolution("res", viewer.res, viewer.patch_size)
    return viewer


def _checkpoint_viewer(cfg: DictConfig, fabric: Fabric) -> Viewer:
    defaults = OmegaConf.structured(BackboneConfig)
    for name in (field.name for field in fields(BackboneConfig)):
        if cfg[name] != defaults[name]:
            raise ConfigError(f"{name}: the checkpoint contains the backbone; leave out this key or checkpoint")
    segmenter = open_segmenter(Path(cfg.checkpoint), fabric)
    refinement = refinement_of_name("crf" if cfg.run_crf else "none")
    view = segmenter.view(cfg.res, refinement=refinement, crf_backend=cfg.crf_backend)
    return Viewer(
        cfg,
        partial(decompose, segmenter.model),
        "Laplacian of code and colour affinity, EiCue from the trained codebook.",
        segmenter.model.net.model.patch_size,
        cfg.res or segmenter.cfg.val_res,
        fabric,
        segmenter.photographs("cluster", view),
        segmenter.legend("cluster", refinement),
        segmenter.cfg,
    )


def _backbone_viewer(cfg: DictConfig, fabric: Fabric) -> Viewer:
    if cfg.run_crf:
        raise ConfigError("run_crf: the CRF refines final clusters, which need a checkpoint")
    backbone = build_backbone(
        cfg.model_type, cfg.dino_patch_size, cfg.pretrained_weights, cfg.key_blocks, **cfg.backbone_kwargs
    )
    fabric.to_device(backbone)
    return Viewer(
        cfg,
        partial(decompose_keys, backbone),
        "No checkpoint: Laplacian of the affinity of normalised keys and of colours, EiCue by k-means of the "
        "eigenvectors.",
        backbone.patch_size,
        cfg.res or round(DEFAULT_RES / backbone.patch_size) * backbone.patch_size,
        fabric,
    )


def _dataset_images(source: Any, split: str) -> list[NamedImage]:
    dataset = open_dataset(source, split)
    return [(dataset.name(index), partial(dataset.image, index)) for index in range(len(dataset))]


def _draw(path: Path, rows: dict[str, EigenPanels], viewer: Viewer) -> None:
    cfg = viewer.cfg
    n_clusters = "as many clusters as EiCue has labels" if cfg.n_clusters is None else f"{cfg.n_clusters} clusters"
    note = (
        f"{viewer.note} The trivial eigenvector is left out; signs are fixed, and each panel has its own colour range. "
        f"Colours of EiCue and k-means are comparable within a row only; k-means has {n_clusters}, and each takes the "
        "colour of the EiCue label that it overlaps most."
    )
    shown = [row.maps["clusters"][0] for row in rows.values() if "clusters" in row.maps]
    figure = panel_grid(
        [row.by_title() for row in rows.values()],
        [f"{name}\n{int(row.decomposition.cue.max()) + 1} labels" for name, row in rows.items()],
        class_legend(shown, viewer.legend.classes, NO_CLASS_NAME) if viewer.legend else (),
        MAP_TITLES["clusters"],
        note=note,
        bar_below="eigenvector 1",
    )
    write_figure(path, figure, cfg.panel_width / PANEL_INCHES)


def _grid_paths(folder: Path, n_grids: int) -> list[Path]:
    """``grid.png``, or numbered names that sort in order."""
    if n_grids == 1:
        return [folder / "grid.png"]
    digits = len(str(n_grids))
    return [folder / f"grid_{number:0{digits}d}.png" for number in range(1, n_grids + 1)]
