"""Draw eigenvectors, EiCue and clusters of images: figures of several rows, and single panels."""

import logging
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from eagle.errors import ConfigError, DataError
from eagle.figures.panel_grid import PANEL_INCHES, PanelRow, panel_grid
from eagle.figures.rendering import write_figure
from eagle.visualization.eigen_panels import CLUSTERS_TITLE, clusters_legend, eigen_note, eigen_panels
from eagle.visualization.image_sources import NamedImage, images_of_run, named_images, spread
from eagle.visualization.viewer import Viewer, open_viewer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What was drawn.

    Attributes:
        grids: files of the figures.
        n_shown: images in them.
        n_named: images that the configuration names, before ``max_images`` selects some.
        unreadable: one line for each image that could not be read.
    """

    grids: list[Path]
    n_shown: int
    n_named: int
    unreadable: list[str]


def visualize(cfg: DictConfig) -> Outcome:
    """Write figures of all images that a configuration names, and with ``panels`` also every panel as a file.

    Writes ``grid.png``, or ``grid_1.png`` and so on for more than ``rows_per_grid`` images; with ``panels``
    ``NAME_image.png``, ``NAME_eigenvector_1.png``, ``NAME_eicue.png``, ``NAME_kmeans.png``, ``NAME_clusters.png``.
    Holds the images of one figure at a time. Images that cannot be read are logged at the end.

    Args:
        cfg: a validated VisualizeConfig.

    Raises:
        CheckpointError, ConfigError, DataError, WeightsError: there is nothing to show at all.
    """
    named = named_images(cfg)
    if not named and cfg.checkpoint is None:
        raise ConfigError("images: name images or folders, set bundled=true, or name a dataset (dir_dataset_name)")
    viewer = open_viewer(cfg)
    if not named and viewer.trained_on is not None:
        named = images_of_run(viewer.trained_on, cfg)
    images = spread(named, cfg.max_images)
    note = eigen_note(viewer.decomposer.note, cfg.n_clusters)
    paths = _grid_paths(Path(cfg.output_dir), -(-len(images) // cfg.rows_per_grid))
    grids: list[Path] = []
    rows: list[PanelRow] = []
    unreadable: list[str] = []
    for image in tqdm(images, "images", unit="image"):
        try:
            rows.append(_row(image, viewer, cfg))
        except DataError as error:
            unreadable.append(str(error))
        if rows and (len(rows) == cfg.rows_per_grid or image is images[-1]):
            grids.append(paths[len(grids)])
            figure = panel_grid(rows, clusters_legend(rows, viewer.legend), CLUSTERS_TITLE, note=note)
            write_figure(grids[-1], figure, cfg.panel_width / PANEL_INCHES)
            rows = []
    for line in unreadable:
        logger.warning("left out: %s", line)
    if not grids:
        raise DataError(f"none of {len(images)} images could be read, see above")
    return Outcome(grids, len(images) - len(unreadable), len(named), unreadable)


def _row(image: NamedImage, viewer: Viewer, cfg: DictConfig) -> PanelRow:
    """The panels of an image; also writes them if the configuration says so."""
    photograph = image.read()
    try:
        view = viewer(photograph)
    except DataError as error:
        raise DataError(f"{image.name}: {error}") from error
    panels = eigen_panels(view.image, view.decomposition, view.clusters, viewer.legend)
    if cfg.panels:
        for panel in panels:
            panel.write(Path(cfg.output_dir) / f"{image.name}_{panel.kind}.png", view.image.size[::-1])
    return PanelRow(panels, image.name, f"{int(view.decomposition.cue.max()) + 1} labels")


def _grid_paths(folder: Path, n_grids: int) -> list[Path]:
    """``grid.png``, or numbered names that sort in order."""
    if n_grids == 1:
        return [folder / "grid.png"]
    digits = len(str(n_grids))
    return [folder / f"grid_{number:0{digits}d}.png" for number in range(1, n_grids + 1)]
