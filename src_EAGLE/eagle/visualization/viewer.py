"""From a photograph to what the method sees in it, with a trained checkpoint or with a bare backbone."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from eagle.checkpoints.formats import read_stored
from eagle.checkpoints.loading import build_segmenter
from eagle.config.schema import BackboneConfig
from eagle.config.validation import check_resolution
from eagle.data.datasets.catalog import known_classes
from eagle.data.loading.transforms import image_tensor, normalize
from eagle.errors import ConfigError, DataError
from eagle.evaluation.evaluator import CRF_SUFFIX
from eagle.inference.masks import Legend
from eagle.inference.photograph import PhotographSegmenter, View
from eagle.models.backbone import build_backbone
from eagle.visualization.decomposition import (
    BackboneDecomposer,
    Decomposer,
    Decomposition,
    SegmenterDecomposer,
    Settings,
)

# Where no run says another: short side in pixels, about.
USUAL_RES = 320
USUAL_EIGENVECTORS = 3
# Affinity and Laplacian of so many patches take 1.2 GB; a full decomposition, which few images need, takes more.
MOST_PATCHES = 10_000


@dataclass(frozen=True)
class ImageView:
    """What a viewer makes of a photograph.

    Attributes:
        image: the whole photograph, smooth, in whole patches of ``scale`` times the pixels that the model sees.
        decomposition: on the grid of patches.
        clusters: final class ids at the image's size, H×W, −1 for none; None without a trained segmenter.
    """

    image: Image.Image
    decomposition: Decomposition
    clusters: np.ndarray | None


@dataclass(frozen=True)
class Viewer:
    """Looks at photographs.

    Attributes:
        decomposer: gives eigenvectors, cue and k-means.
        res: short side in pixels that it sees, a multiple of its patch size.
        scale: pixels that it shows for each of those.
        fabric: decides device and precision.
        segmenter: gives final clusters, as segment_images.py does; None for a bare backbone.
        legend: of those.
        trained_on: the segmenter's configuration.
    """

    decomposer: Decomposer
    res: int
    scale: int
    fabric: Fabric
    segmenter: PhotographSegmenter | None = None
    legend: Legend | None = None
    trained_on: DictConfig | None = None

    def __call__(self, photograph: Image.Image) -> ImageView:
        """Look at an RGB photograph of any size.

        It is seen whole: its short side at ``res`` pixels and its long side at the nearest number of whole patches,
        which changes its aspect by half a patch at the most.

        Raises:
            DataError: it is so long that its patches are too many.
        """
        seen = self._seen_size(photograph)
        width, height = (side * self.scale for side in seen)
        # The model sees pixels as in training, people smooth ones.
        img = normalize(image_tensor(photograph.resize(seen, Image.Resampling.NEAREST)))[None]
        with self.fabric.autocast():
            decomposition = self.decomposer(self.fabric.to_device(img))
        clusters = None
        if self.segmenter is not None and self.legend is not None:
            clusters = self.legend.ids(self.segmenter(photograph, (height, width)))
        return ImageView(photograph.resize((width, height), Image.Resampling.LANCZOS), decomposition, clusters)

    def _seen_size(self, photograph: Image.Image) -> tuple[int, int]:
        """(width, height)."""
        patch_size, short = self.decomposer.patch_size, min(photograph.size)
        columns, rows = (round(side * self.res / short / patch_size) for side in photograph.size)
        if columns * rows > MOST_PATCHES:
            raise DataError(f"{columns}×{rows} patches are more than {MOST_PATCHES}; lower res, or crop the image")
        return columns * patch_size, rows * patch_size


def open_viewer(cfg: DictConfig) -> Viewer:
    """The viewer that a configuration asks for.

    Args:
        cfg: a validated VisualizeConfig.

    Raises:
        CheckpointError, ConfigError, WeightsError: see their one-line messages.
    """
    fabric = Fabric(accelerator=cfg.accelerator, devices=1, precision=cfg.precision)
    viewer = _of_backbone(cfg, fabric) if cfg.checkpoint is None else _of_checkpoint(cfg, fabric)
    check_resolution("res", viewer.res, viewer.decomposer.patch_size)
    return viewer


def _of_checkpoint(cfg: DictConfig, fabric: Fabric) -> Viewer:
    usual = OmegaConf.structured(BackboneConfig)
    for name in (field.name for field in fields(BackboneConfig)):
        if cfg[name] != usual[name]:
            raise ConfigError(f"{name}: the backbone comes with the checkpoint; leave out one of them")
    path = Path(cfg.checkpoint)
    stored = read_stored(path)
    segmenter = build_segmenter(stored, path).eval()
    run = segmenter.cfg
    settings = Settings(
        cfg.n_eigenvectors or run.eigen_cluster - 1, cfg.n_clusters, cfg.color_affinity or run.color_affinity, cfg.seed
    )
    res = cfg.res or run.val_res
    photographs = PhotographSegmenter(segmenter, "cluster", View(res, None, cfg.run_crf, cfg.crf_backend), fabric)
    map_name = "cluster" + (CRF_SUFFIX if cfg.run_crf else "")
    legend = Legend(stored.class_map, map_name, len(segmenter.cluster_probe.clusters), known_classes(run))
    return Viewer(SegmenterDecomposer(segmenter, settings), res, cfg.panel_scale, fabric, photographs, legend, run)


def _of_backbone(cfg: DictConfig, fabric: Fabric) -> Viewer:
    if cfg.run_crf:
        raise ConfigError("run_crf: refines the final clusters, which need a checkpoint")
    backbone = build_backbone(
        cfg.model_type, cfg.dino_patch_size, cfg.pretrained_weights, cfg.key_blocks, **cfg.backbone_kwargs
    )
    fabric.to_device(backbone)
    settings = Settings(
        cfg.n_eigenvectors or USUAL_EIGENVECTORS, cfg.n_clusters, cfg.color_affinity or "released", cfg.seed
    )
    res = cfg.res or round(USUAL_RES / backbone.patch_size) * backbone.patch_size
    return Viewer(BackboneDecomposer(backbone, settings), res, cfg.panel_scale, fabric)
