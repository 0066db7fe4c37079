"""Draw eigenvectors, EiCue, k-means of the keys and final clusters of images, as in the paper's figure."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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
from eagle.data.labels import NO_CLASS_NAME, colored, distinct_palette, write_colored_ids, write_image
from eagle.data.named_files import bundled_photographs, named_files, output_names
from eagle.distributed import chosen_precision
from eagle.errors import ConfigError, DataError
from eagle.figures.drawing import write_figure
from eagle.figures.grids import Panel, class_legend, eigenvector_colors, panel_grid
from eagle.inference.photograph import whole_patch_input
from eagle.inference.segmenter import Segmenter, load_segmenter, machine_of
from eagle.models.backbone import build_backbone
from eagle.spectral.eicue import laplacian_eigenvectors

# Without a checkpoint; the resolution is rounded to whole patches.
DEFAULT_RES, DEFAULT_EIGENVECTORS, DEFAULT_LABELS = 320, 3, 8
INITIALISATIONS = 3
# Size of the panels' files relative to the model's input.
PANEL_SCALE = 2
# Last part of a label map's file name → its title in the figure.
MAP_TITLES = {"eicue": "EiCue", "kmeans": "k-means of keys", "clusters": "final clusters"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EigenPanels:
    """The panels of one photograph.

    Attributes:
        image: the whole photograph at the size of the panels' files.
        eigenvectors: n×h×w float32 on the grid of patches, signs fixed, without the trivial one.
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
        write_image(folder / f"{name}_image.png", self.image)
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
    def __call__(self, photograph: Image.Image) -> EigenPanels:
        """Decompose and segment an RGB photograph of any size; raises DataError if it has too many patches."""
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
        labels, compact = np.unique(cue, return_inverse=True)
        cue = compact.reshape(cue.shape)
        kmeans = numbered_like(cosine_kmeans(keys[0], cfg.n_clusters or len(labels), cfg.seed), cue)
        palette = distinct_palette(1 + int(max(cue.max(), kmeans.max())))
        panels = {"eicue": (cue, palette), "kmeans": (kmeans, palette)}
        size = PANEL_SCALE * img.shape[3], PANEL_SCALE * img.shape[2]
        if self.segmenter is not None:
            (clusters,) = self.photographs.label_maps([self.photographs.prepare(photograph)])
            shown = Image.fromarray(clusters.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
            legend = self.photographs.legend
            panels["clusters"] = legend.ids(np.asarray(shown)), legend.classes.palette
        # Smoothly, unlike the model's input.
        return EigenPanels(photograph.resize(size, Image.Resampling.LANCZOS), eigenvectors, panels)


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

    For the panels' files see ``EigenPanels``. Images that cannot be read are logged.

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
    for index in tqdm(np.linspace(0, len(named) - 1, n).round().astype(int).tolist(), "images", unit="image"):
        name, read = named[index]
        try:
            rows[name] = viewer(read())
            if cfg.panels:
                rows[name].write(folder, name)
        except DataError as error:
            logger.warning("left out: %s: %s", name, error)
    if not rows:
        raise DataError(f"none of {n} images could be read, see above")
    shown = [row.maps["clusters"][0] for row in rows.values() if "clusters" in row.maps]
    figure = panel_grid(
        [row.by_title() for row in rows.values()],
        [f"{name}\n{int(row.maps['eicue'][0].max()) + 1} labels" for name, row in rows.items()],
        class_legend(shown, viewer.photographs.legend.classes, NO_CLASS_NAME) if shown else (),
        bar_below="eigenvector 1",
    )
    write_figure(folder / "grid.png", figure)
    left_out = f", {n - len(rows)} left out" if n > len(rows) else ""
    return f"{len(rows)} of {len(named)} images{left_out}: {folder / 'grid.png'}"


def _named_images(cfg: DictConfig, segmenter: Segmenter | None) -> list[tuple[str, Callable[[], Image.Image]]]:
    """A unique name of each image, and what reads it; without named files, of the checkpoint's dataset."""
    files = named_files(cfg.images) + (bundled_photographs() if cfg.bundled else [])
    if files or segmenter is None:
        return [(name, partial(read_photograph, path)) for path, name in zip(files, output_names(files), strict=True)]
    dataset = open_dataset(dataset_config(segmenter.model, cfg.pytorch_data_dir), cfg.split)
    return [(dataset.name(index), partial(dataset.image, index)) for index in range(len(dataset))]
