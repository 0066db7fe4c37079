"""Pictures of what the method sees in images: single panels, and figures of some rows each."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from eagle.errors import ConfigError, DataError
from eagle.figures.panel_grid import PanelRow, draw_panel_grid
from eagle.visualization.eigen_panels import class_colors, eigen_note, eigen_panels
from eagle.visualization.image_sources import NamedImage, images_trained_beside, named_images, spread
from eagle.visualization.viewer import Viewer, open_viewer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of the images that a configuration names.

    Attributes:
        grids: the figures.
        n_shown: images in them.
        n_named: images that were named, of which ``max_images`` were taken.
        unreadable: a line for each image that could not be read.
    """

    grids: list[Path]
    n_shown: int
    n_named: int
    unreadable: list[str]


def visualize(cfg: DictConfig) -> Outcome:
    """Write the figures of everything that a configuration names, and with ``panels`` every panel by itself.

    ``grid.png``, or ``grid_1.png`` and so on where there are more images than ``rows_per_grid``; ``NAME_image.png``,
    ``NAME_eigenvector_1.png``, ``NAME_eicue.png``, ``NAME_kmeans.png``, ``NAME_clusters.png``. No more than one
    figure's images are held at once. Images that cannot be read are listed at the end.

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
        named = images_trained_beside(viewer.trained_on, cfg)
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
            _draw(grids[-1], rows, viewer, note, cfg.panel_width)
            rows = []
    for line in unreadable:
        logger.warning("left out: %s", line)
    if not grids:
        raise DataError(f"none of {len(images)} images could be read, see above")
    return Outcome(grids, len(images) - len(unreadable), len(named), unreadable)


def _row(image: NamedImage, viewer: Viewer, cfg: DictConfig) -> PanelRow:
    """The panels of an image, which are also written one by one where that is asked for."""
    photograph = image.read()
    try:
        view = viewer(photograph)
    except DataError as error:
        raise DataError(f"{image.name}: {error}") from error
    panels = eigen_panels(view.image, view.decomposition, view.clusters, viewer.legend)
    width, height = view.image.size
    if cfg.panels:
        for panel in panels:
            panel.write(Path(cfg.output_dir) / f"{image.name}_{panel.kind}.png", (height, width))
    n_labels = int(view.decomposition.cue.max()) + 1
    return PanelRow(image.name, f"{n_labels} labels", height / width, panels)


def _draw(path: Path, rows: Sequence[PanelRow], viewer: Viewer, note: str, panel_width: int) -> None:
    draw_panel_grid(path, rows, class_colors([row.panels for row in rows], viewer.legend), note, panel_width)


def _grid_paths(folder: Path, n_grids: int) -> list[Path]:
    """``grid.png``, or numbered names that sort in order."""
    if n_grids == 1:
        return [folder / "grid.png"]
    digits = len(str(n_grids))
    return [folder / f"grid_{number:0{digits}d}.png" for number in range(1, n_grids + 1)]
