"""See what the method sees: ``python visualize_eigen.py IMAGE_OR_FOLDER … [checkpoint=CHECKPOINT] [key=value …]``."""

from dataclasses import dataclass

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import BackboneConfig, DatasetConfig, key
from eagle.default_folders import default_folder
from eagle.evaluation.crf import BACKENDS
from eagle.visualization.visualize import visualize


@dataclass
class VisualizeConfig(DatasetConfig, BackboneConfig):
    """Every key of ``visualize_eigen.py``; those of the backbone count without a checkpoint only."""

    images: list[str] = key([], "Images and folders of images")
    bundled: bool = key(False, "Also the photographs that scikit-image and scikit-learn bring along")
    split: str = key(
        "val", "Split of the dataset that is named; of the checkpoint's where nothing is", choices=("train", "val")
    )
    max_images: int | None = key(16, "Most images, evenly spread over all that are named; none = all", minimum=1)

    checkpoint: str | None = key(
        None, "Trained segmenter; none = a bare backbone: its normalised keys in place of codes, no final clusters"
    )
    res: int | None = key(
        None, "Short side in pixels that the model sees, images stay whole; none = the run's val_res, or about 320",
        minimum=1,
    )  # fmt: skip
    n_eigenvectors: int | None = key(
        None, "Eigenvectors shown, without the trivial one; none = those that EiCue is made of", minimum=1
    )
    n_clusters: int | None = key(
        None,
        "Clusters of k-means; none = as many as EiCue has labels in the image, so that the two compare. Without a "
        "checkpoint EiCue's too; none = 8",
        minimum=1,
    )
    color_affinity: str | None = key(
        None, "Pixels of the colour affinity; none = the run's, or released", choices=("released", "paper")
    )
    run_crf: bool = key(False, "Refine final clusters with a dense CRF")
    crf_backend: str = key("auto", "Dense CRF: see eval_segmentation.py", choices=BACKENDS)
    seed: int = key(0, "Seed of k-means", minimum=0)

    output_dir: str = key(default_folder("outputs/eigen"), "Folder for the pictures", path=True)
    panels: bool = key(False, "Also write every panel by itself; those of labels are palette PNGs of the labels")
    panel_scale: int = key(2, "Pixels of those panels for each pixel that the model sees", minimum=1, maximum=32)
    panel_width: int = key(240, "Width of a grid's panels in pixels; letters grow with it", minimum=32)
    rows_per_grid: int = key(8, "Rows in a grid, at most", minimum=1)
    accelerator: str = key("auto", "Lightning accelerator: auto, cpu, gpu, mps …")
    precision: str = key(
        "32-true", "Lightning precision of backbone and head", choices=("32-true", "16-mixed", "bf16-mixed")
    )


def visualize_eigen(cfg: DictConfig) -> None:
    """Draw the paper's picture, a row for each image: eigenvectors of the Laplacian, EiCue, k-means, final clusters."""
    outcome = visualize(cfg)
    left_out = f", {len(outcome.unreadable)} left out" if outcome.unreadable else ""
    print(f"{outcome.n_shown} of {outcome.n_named} images{left_out}: {' '.join(map(str, outcome.grids))}")


if __name__ == "__main__":
    run_command(VisualizeConfig, visualize_eigen, positional="images")
