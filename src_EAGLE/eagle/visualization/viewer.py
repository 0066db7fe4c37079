"""Decompose and segment photographs, with a trained checkpoint or with a bare backbone."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from eagle.config.refinement import Refinement
from eagle.config.schema import BackboneConfig
from eagle.config.validation import check_resolution
from eagle.errors import ConfigError
from eagle.inference.masks import Legend
from eagle.inference.photograph import PhotographSegmenter
from eagle.inference.segmenter import open_segmenter
from eagle.inference.whole_patches import input_of_size, whole_patch_size
from eagle.models.backbone import build_backbone
from eagle.visualization.decomposition import (
    BackboneDecomposer,
    Decomposer,
    Decomposition,
    SegmenterDecomposer,
    Settings,
)

# Defaults without a checkpoint; res is rounded to whole patches.
DEFAULT_RES = 320
DEFAULT_EIGENVECTORS = 3


@dataclass(frozen=True)
class ImageView:
    """A photograph with its decomposition and final clusters.

    Attributes:
        image: the whole photograph, smoothly resized to ``scale`` times the size of the model input.
        decomposition: eigenvectors and label maps on the grid of patches.
        clusters: H×W final class ids at the size of ``image``, −1 for none; None without a trained segmenter.
    """

    image: Image.Image
    decomposition: Decomposition
    clusters: np.ndarray | None


@dataclass(frozen=True)
class Viewer:
    """Callable that decomposes and segments a photograph.

    Attributes:
        decomposer: computes eigenvectors, EiCue and k-means.
        res: short side of the model input in pixels, a multiple of the patch size.
        scale: side of the shown image divided by that of the model input.
        fabric: device and precision.
        segmenter: computes final clusters as segment_images.py does; None for a bare backbone.
        legend: names and colours of the final clusters.
        trained_on: configuration of the segmenter.
    """

    decomposer: Decomposer
    res: int
    scale: int
    fabric: Fabric
    segmenter: PhotographSegmenter | None = None
    legend: Legend | None = None
    trained_on: DictConfig | None = None

    def __call__(self, photograph: Image.Image) -> ImageView:
        """Decompose and segment an RGB photograph of any size.

        The whole photograph is resized: short side to ``res``, long side to the nearest multiple of the patch size. The
        aspect changes by at most half a patch.

        Raises:
            DataError: the photograph is so long that it has too many patches.
        """
        input_size = whole_patch_size(photograph, self.res, self.decomposer.patch_size)
        width, height = (side * self.scale for side in input_size)
        with self.fabric.autocast():
            decomposition = self.decomposer(self.fabric.to_device(input_of_size(photograph, input_size)))
        clusters = None
        if self.segmenter is not None and self.legend is not None:
            clusters = self.legend.ids(self.segmenter(photograph, (height, width)))
        # Smoothly, unlike the model's input.
        return ImageView(photograph.resize((width, height), Image.Resampling.LANCZOS), decomposition, clusters)


def open_viewer(cfg: DictConfig) -> Viewer:
    """Build the viewer of a configuration.

    Args:
        cfg: a validated VisualizeConfig.

    Raises:
        CheckpointError, ConfigError, WeightsError: a checkpoint, key or weights file is unusable.
    """
    fabric = Fabric(accelerator=cfg.accelerator, devices=1, precision=cfg.precision)
    viewer = _backbone_viewer(cfg, fabric) if cfg.checkpoint is None else _checkpoint_viewer(cfg, fabric)
    check_resolution("res", viewer.res, viewer.decomposer.patch_size)
    return viewer


def _checkpoint_viewer(cfg: DictConfig, fabric: Fabric) -> Viewer:
    defaults = OmegaConf.structured(BackboneConfig)
    for name in (field.name for field in fields(BackboneConfig)):
        if cfg[name] != defaults[name]:
            raise ConfigError(f"{name}: the checkpoint contains the backbone; leave out this key or checkpoint")
    segmenter = open_segmenter(Path(cfg.checkpoint), fabric)
    run = segmenter.cfg
    settings = Settings(
        cfg.n_eigenvectors or run.eigen_cluster - 1, cfg.n_clusters, cfg.color_affinity or run.color_affinity, cfg.seed
    )
    refinement = Refinement(spectral=False, crf=cfg.run_crf)
    view = segmenter.view(cfg.res, refinement=refinement, crf_backend=cfg.crf_backend)
    photographs = PhotographSegmenter(segmenter, "cluster", view, fabric)
    legend = segmenter.legend("cluster", refinement)
    res = cfg.res or run.val_res
    return Viewer(SegmenterDecomposer(segmenter, settings), res, cfg.panel_scale, fabric, photographs, legend, run)


def _backbone_viewer(cfg: DictConfig, fabric: Fabric) -> Viewer:
    if cfg.run_crf:
        raise ConfigError("run_crf: the CRF refines final clusters, which need a checkpoint")
    backbone = build_backbone(
        cfg.model_type, cfg.dino_patch_size, cfg.pretrained_weights, cfg.key_blocks, **cfg.backbone_kwargs
    )
    fabric.to_device(backbone)
    settings = Settings(
        cfg.n_eigenvectors or DEFAULT_EIGENVECTORS, cfg.n_clusters, cfg.color_affinity or "released", cfg.seed
    )
    res = cfg.res or round(DEFAULT_RES / backbone.patch_size) * backbone.patch_size
    return Viewer(BackboneDecomposer(backbone, settings), res, cfg.panel_scale, fabric)
