"""Draw eigenvectors, EiCue, k-means of the keys and final clusters of images, as in the paper's figure."""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from eagle.checkpoints import dataset_config
from eagle.config.refinement import RECOMMENDED, refinement_of_name
from eagle.config.schema import BackboneConfig
from eagle.config.validation import check_resolution
from eagle.data.datasets.catalog import open_dataset
from eagle.data.images import read_photograph
from eagle.data.labels import NO_CLASS_NAME, colored_image, distinct_palette, write_image
from eagle.data.named_files import bundled_photographs, named_files, output_names
from eagle.distributed import chosen_precision
from eagle.errors import ConfigError, DataError
from eagle.figures.drawing import write_figure
from eagle.figures.grids import Panel, class_legend, eigenvector_colors, panel_grid
from eagle.files import only_writer
from eagle.inference.photograph import whole_patch_input
from eagle.inference.segmenter import Segmenter, load_segmenter, machine_of
from eagle.models.backbone import build_backbone
from eagle.spectral.eicue import laplacian_eigenvectors

# Without a checkpoint; the resolution is rounded to whole patches.
DEFAULT_RES, DEFAULT_EIGENVECTORS, DEFAULT_LABELS = 320, 3, 8
INITIALISATIONS = 3
# Size of the panels' files relative to the model's input.
PANEL_SCALE = 2
# Titles of label maps in the figure.
TITLES = {"eicue": "EiCue", "kmeans": "k-means of keys", "clusters": "final clusters"}

logger = logging.getLogger(__name__)


class Viewer:
    """Callable that decomposes and segments a photograph, with a trained checkpoint or a bare backbone.

    Without a checkpoint, normalised keys replace the codes, and cosine k-means of the eigenvectors the codebook of
    EiCue, which compares by cosine too.

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
        self.segmenter: Segmenter | None = None
        if cfg.checkpoint is not None:
            defaults = OmegaConf.structured(BackboneConfig)
            for name in defaults:
                if cfg[name] != defaults[name]:
                    raise ConfigError(f"{name}: the checkpoint contains the backbone; leave out this key or checkpoint")
            self.segmenter = load_segmenter(cfg.checkpoint, cfg.accelerator, chosen_precision(cfg))
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

    @torch.no_grad()
    def __call__(self, photograph: Image.Image) -> tuple[dict[str, Image.Image], np.ndarray | None]:
        """Decompose and segment an RGB photograph of any size.

        Returns:
            The panels by the last part of their files' names, in the paper's order: the photograph at the size of the
            panels' files, eigenvectors, and label maps, on the grid of patches but for the final clusters; and
            the class ids of these, if there is a checkpoint.

        Raises:
            DataError: the photograph has too many patches.
        """
        cfg = self._cfg
        img = self._fabric.to_device(whole_patch_input(photograph, self._res, self._backbone.patch_size))
        with self._fabric.autocast():
            keys = self._backbone(img).float()
        if self.segmenter is not None:
            eigenvectors, cue = self.segmenter.eigenvectors_and_cue(photograph, cfg.n_eigenvectors, self._res)
        else:
            k = 1 + (cfg.n_eigenvectors or DEFAULT_EIGENVECTORS)
            maps = laplacian_eigenvectors(F.normalize(keys, dim=1), img, k)[0, :, 1:].T.unflatten(1, keys.shape[2:])
            eigenvectors, cue = maps.cpu().numpy(), cosine_kmeans(maps, cfg.n_clusters or DEFAULT_LABELS, cfg.seed)
        _, compact, counts = np.unique(cue, return_inverse=True, return_counts=True)
        by_size = np.argsort(np.argsort(-counts, kind="stable"))  # the largest gets the first colour
        cue = by_size[compact].reshape(cue.shape)
        kmeans = numbered_like(cosine_kmeans(keys[0], cfg.n_clusters or len(counts), cfg.seed), cue)
        palette = distinct_palette(1 + int(max(cue.max(), kmeans.max())))
        size = PANEL_SCALE * img.shape[3], PANEL_SCALE * img.shape[2]
        # Smoothly, unlike the model's input.
        panels = {"image": photograph.resize(size, Image.Resampling.LANCZOS)}
        for n, values in enumerate(eigenvectors, 1):
            panels[f"eigenvector_{n}"] = Image.fromarray(eigenvector_colors(values))
        panels |= {"eicue": colored_image(cue, palette), "kmeans": colored_image(kmeans, palette)}
        if self.segmenter is None:
            return panels, None
        (clusters,) = self.photographs.label_maps([self.photographs.prepare(photograph)])
        enlarged = Image.fromarray(clusters.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
        ids = self.photographs.legend.ids(np.asarray(enlarged))
        return panels | {"clusters": colored_image(ids, self.photographs.legend.classes.palette)}, ids


def cosine_kmeans(features: Tensor, n_clusters: int, seed: int) -> np.ndarray:
    """Cosine k-means of the patches of one image; the cluster probe and the EiCue codebook also compare by cosine.

    Args:
        features: D×h×w.
        n_clusters: maximum number of clusters; images with fewer distinct patches have fewer.
        seed: seed of the initial centres.

    Returns:
        h×w int labels.
    """
    patches = F.normalize(features.float(), dim=0).flatten(1).T.cpu().numpy()
    kmeans = KMeans(min(n_clusters, len(patches)), n_init=INITIALISATIONS, random_state=seed)
    with warnings.catch_warnings():
        # Fewer distinct patches than clusters, as in a flat image.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit_predict(patches)
    return labels.reshape(features.shape[1:])


def numbered_like(labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Renumber labels one-to-one so that as many pixels as possible agree with a reference (Hungarian matching).

    Args:
        labels: H×W, small integers from 0.
        reference: H×W, labels 0, 1, … without gaps.

    Returns:
        H×W int64; surplus labels get the numbers after those of the reference.
    """
    n = 1 + int(max(labels.max(), reference.max()))
    overlap = np.zeros((n, n), dtype=np.int64)
    np.add.at(overlap, (labels, reference), 1)
    return linear_sum_assignment(overlap, maximize=True)[1][labels]


def visualize(cfg: DictConfig) -> str:
    """Write ``grid.png`` of the images that a configuration names; with ``panels`` also every panel as a file.

    Those are ``NAME_image.png``, ``NAME_eigenvector_1.png`` … and a palette PNG of the ids of each label map. Images
    that cannot be read are logged.

    Args:
        cfg: a validated VisualizeConfig.

    Returns:
        A line: how many images were drawn and left out, and the file.

    Raises:
        CheckpointError, ConfigError, DataError, WeightsError: there is nothing to show at all.
        EagleError: another process writes to the output folder.
    """
    if not cfg.images and not cfg.bundled and cfg.checkpoint is None:
        raise ConfigError("images: name images or folders, set bundled=true, or name a checkpoint with its dataset")
    viewer = Viewer(cfg)
    named = _named_images(cfg, viewer.segmenter)
    n = min(cfg.max_images, len(named))
    folder = Path(cfg.output_dir)
    with only_writer(folder):
        rows: dict[str, dict[str, Panel]] = {}
        shown: list[np.ndarray] = []
        for index in tqdm(np.linspace(0, len(named) - 1, n).round().astype(int).tolist(), "images", unit="image"):
            name, read = named[index]
            try:
                panels, ids = viewer(read())
            except DataError as error:
                logger.warning("left out: %s: %s", name, error)
                continue
            rows[name] = {"image": panels["image"]}
            for kind, panel in panels.items():
                if cfg.panels:
                    enlarged = panel.resize(panels["image"].size, Image.Resampling.NEAREST)
                    write_image(folder / f"{name}_{kind}.png", enlarged)
                if kind != "image":
                    rows[name][TITLES.get(kind, kind.replace("_", " "))] = np.asarray(panel.convert("RGB"))
            shown += [] if ids is None else [np.unique(ids)]
        if not rows:
            raise DataError(f"none of {n} images could be read, see above")
        legend = class_legend(shown, viewer.photographs.legend.classes, NO_CLASS_NAME) if shown else ()
        figure = panel_grid([*rows.values()], [*rows], legend, bar_below="eigenvector 1")
        write_figure(folder / "grid.png", figure)
    left_out = f", {n - len(rows)} left out" if n > len(rows) else ""
    return f"{len(rows)} of {len(named)} images{left_out}: {folder / 'grid.png'}"


def _named_images(cfg: DictConfig, segmenter: Segmenter | None) -> list[tuple[str, Callable[[], Image.Image]]]:
    """A unique name of each image, and what reads it; without named files, of the checkpoint's dataset."""
    files = named_files(cfg.images) + (bundled_photographs() if cfg.bundled else [])
    if files or segmenter is None:
        return [(name, partial(read_photograph, path)) for path, name in zip(files, output_names(files), strict=True)]
    dataset = open_dataset(dataset_config(segmenter.model.cfg, cfg.pytorch_data_dir), cfg.split)
    return [(dataset.name(index), partial(dataset.image, index)) for index in range(len(dataset))]
