"""Draw eigenvectors, EiCue, k-means of the keys and final clusters of images, as in the paper's figure."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tqdm import tqdm

from eagle.checkpoints import dataset_config
from eagle.config.refinement import RECOMMENDED, refinement_of_name
from eagle.config.schema import BackboneConfig
from eagle.config.validation import check_resolution
from eagle.data.datasets.catalog import open_dataset
from eagle.data.images import read_photograph
from eagle.data.labels import NO_CLASS_NAME, colored, distinct_palette, write_colored_ids, write_image
from eagle.data.named_files import bundled_photographs, named_files, output_names
from eagle.distributed import chosen_precision
from eagle.errors import ConfigError, DataError
from eagle.figures.drawing import write_figure
from eagle.figures.grids import Panel, class_legend, eigenvector_colors, panel_grid
from eagle.inference.decomposition import decompose, whole_patch_input
from eagle.inference.segmenter import Segmenter, load_segmenter, machine_of
from eagle.models.backbone import build_backbone

# Without a checkpoint; rounded to whole patches.
DEFAULT_RES = 320
# Size of the panels' files relative to the model's input.
PANEL_SCALE = 2
# Last part of a label map's file name → its title in the figure.
MAP_TITLES = {"eicue": "EiCue", "kmeans": "k-means of keys", "clusters": "final clusters"}
CHECKPOINT_NOTE = "Laplacian of code and colour affinity, EiCue from the trained codebook."
BACKBONE_NOTE = (
    "No checkpoint: Laplacian of the affinity of normalised keys and of colours, EiCue by k-means of the eigenvectors."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EigenPanels:
    """The panels of one photograph.

    Attributes:
        image: the whole photograph at the size of the panels' files.
        eigenvectors: n×h×w float32, see ``Decomposition``.
        maps: ids and palette of each label map, by the keys of MAP_TITLES; final clusters only with a checkpoint.
    """

    image: Image.Image
    eigenvectors: np.ndarray
    maps: dict[str, tuple[np.ndarray, np.ndarray]]

    def by_title(self) -> dict[str, Panel]:
        """The panels as drawn in a figure, in the paper's order."""
        panels: dict[str, Panel] = {"image": self.image}
        panels |= {f"eigenvector {n}": eigenvector_colors(values) for n, values in enumerate(self.eigenvectors, 1)}
        return panels | {MAP_TITLES[kind]: colored(ids, palette) for kind, (ids, palette) in self.maps.items()}

    def write(self, folder: Path, name: str) -> None:
        """Write ``NAME_image.png``, ``NAME_eigenvector_1.png`` … and a palette PNG of the ids of each label map."""
        write_image(folder / f"{name}_image.png", np.asarray(self.image))
        for n, values in enumerate(self.eigenvectors, 1):
            colors = Image.fromarray(eigenvector_colors(values))
            write_image(folder / f"{name}_eigenvector_{n}.png", self._enlarged(colors))
        for kind, (ids, palette) in self.maps.items():
            enlarged = self._enlarged(Image.fromarray(ids.astype(np.int32)))
            write_colored_ids(folder / f"{name}_{kind}.png", enlarged, palette)

    def _enlarged(self, values: Image.Image) -> np.ndarray:
        return np.asarray(values.resize(self.image.size, Image.Resampling.NEAREST))


class Viewer:
    """Callable that decomposes and segments a photograph, with a trained checkpoint or a bare backbone.

    Args:
        cfg: a validated VisualizeConfig.

    Attributes:
        segmenter: the checkpoint's; None for a bare backbone.
        photographs: what computes its final clusters.

    Raises:
        CheckpointError, ConfigError, WeightsError: a checkpoint, key or weights file is unusable.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self.segmenter = _segmenter(cfg) if cfg.checkpoint is not None else None
        if self.segmenter is not None:
            self._fabric = self.segmenter.machine
            self._backbone = self.segmenter.model.net.model
            self._res = cfg.res or self.segmenter.cfg.val_res
            # Final clusters are computed as segment_images.py does.
            refinement = refinement_of_name("both" if cfg.run_crf else RECOMMENDED)
            self.photographs = self.segmenter.photographs(refinement, res=cfg.res, crf_backend=cfg.crf_backend)
        else:
            if cfg.run_crf:
                raise ConfigError("run_crf: the CRF refines final clusters, which need a checkpoint")
            self._backbone = build_backbone(
                cfg.model_type, cfg.dino_patch_size, cfg.pretrained_weights, cfg.key_blocks, **cfg.backbone_kwargs
            )
            self._fabric = machine_of(cfg.accelerator, chosen_precision(cfg))
            self._fabric.to_device(self._backbone)
            self._res = cfg.res or round(DEFAULT_RES / self._backbone.patch_size) * self._backbone.patch_size
        check_resolution("res", self._res, self._backbone.patch_size)

    def __call__(self, photograph: Image.Image) -> EigenPanels:
        """Decompose and segment an RGB photograph of any size; raises DataError if it has too many patches."""
        img = self._fabric.to_device(whole_patch_input(photograph, self._res, self._backbone.patch_size))
        width, height = PANEL_SCALE * img.shape[3], PANEL_SCALE * img.shape[2]
        with self._fabric.autocast():
            found = decompose(self._backbone, self.segmenter.model if self.segmenter else None, img, self._cfg)
        palette = distinct_palette(1 + int(max(found.cue.max(), found.kmeans.max())))
        maps = {"eicue": (found.cue, palette), "kmeans": (found.kmeans, palette)}
        if self.segmenter is not None:
            (clusters,) = self.photographs.label_maps([self.photographs.prepare(photograph)])
            shown = Image.fromarray(clusters.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
            legend = self.photographs.legend
            maps["clusters"] = legend.ids(np.asarray(shown)), legend.classes.palette
        # Smoothly, unlike the model's input.
        return EigenPanels(photograph.resize((width, height), Image.Resampling.LANCZOS), found.eigenvectors, maps)


def visualize(cfg: DictConfig) -> str:
    """Write ``grid.png`` of the images that a configuration names; with ``panels`` also every panel as a file.

    For the panels' files see ``EigenPanels``. Images that cannot be read are logged at the end.

    Args:
        cfg: a validated VisualizeConfig.

    Returns:
        A line: how many images were drawn and left out, and the file.

    Raises:
        CheckpointError, ConfigError, DataError, WeightsError: there is nothing to show at all.
    """
    if not cfg.images and not cfg.bundled and cfg.checkpoint is None:
        raise ConfigError("images: name images or folders, set bundled=true, or name a checkpoint with its dataset")
    viewer = Viewer(cfg)
    named = _named_images(cfg, viewer.segmenter)
    n = min(cfg.max_images, len(named))
    folder = Path(cfg.output_dir)
    rows: dict[str, EigenPanels] = {}
    unreadable: list[str] = []
    for index in tqdm(np.linspace(0, len(named) - 1, n).round().astype(int).tolist(), "images", unit="image"):
        name, read = named[index]
        try:
            rows[name] = viewer(read())
            if cfg.panels:
                rows[name].write(folder, name)
        except DataError as error:
            unreadable.append(f"{name}: {error}")
    for line in unreadable:
        logger.warning("left out: %s", line)
    if not rows:
        raise DataError(f"none of {n} images could be read, see above")
    _draw(folder / "grid.png", rows, viewer, cfg)
    left_out = f", {len(unreadable)} left out" if unreadable else ""
    return f"{len(rows)} of {len(named)} images{left_out}: {folder / 'grid.png'}"


def _named_images(cfg: DictConfig, segmenter: Segmenter | None) -> list[tuple[str, Callable[[], Image.Image]]]:
    """A unique name of each image, and what reads it; without named files, of the checkpoint's dataset."""
    files = named_files(cfg.images) + (bundled_photographs() if cfg.bundled else [])
    if files or segmenter is None:
        return [(name, partial(read_photograph, path)) for path, name in zip(files, output_names(files), strict=True)]
    dataset = open_dataset(dataset_config(segmenter.model, cfg.pytorch_data_dir), cfg.split)
    return [(dataset.name(index), partial(dataset.image, index)) for index in range(len(dataset))]


def _segmenter(cfg: DictConfig) -> Segmenter:
    defaults = OmegaConf.structured(BackboneConfig)
    for name in (field.name for field in fields(BackboneConfig)):
        if cfg[name] != defaults[name]:
            raise ConfigError(f"{name}: the checkpoint contains the backbone; leave out this key or checkpoint")
    return load_segmenter(cfg.checkpoint, cfg.accelerator, chosen_precision(cfg))


def _draw(path: Path, rows: dict[str, EigenPanels], viewer: Viewer, cfg: DictConfig) -> None:
    n_clusters = "as many clusters as EiCue has labels" if cfg.n_clusters is None else f"{cfg.n_clusters} clusters"
    note = (
        f"{CHECKPOINT_NOTE if viewer.segmenter else BACKBONE_NOTE} The trivial eigenvector is left out; signs are "
        "fixed, and each panel has its own colour range. "
        f"Colours of EiCue and k-means are comparable within a row only; k-means has {n_clusters}, and each takes the "
        "colour of the EiCue label that it overlaps most."
    )
    shown = [row.maps["clusters"][0] for row in rows.values() if "clusters" in row.maps]
    figure = panel_grid(
        [row.by_title() for row in rows.values()],
        [f"{name}\n{int(row.maps['eicue'][0].max()) + 1} labels" for name, row in rows.items()],
        class_legend(shown, viewer.photographs.legend.classes, NO_CLASS_NAME) if viewer.segmenter else (),
        note=note,
        bar_below="eigenvector 1",
    )
    write_figure(path, figure)
