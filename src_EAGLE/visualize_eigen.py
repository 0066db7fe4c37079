"""Draw eigenvectors, EiCue and clusters: ``python visualize_eigen.py IMAGE … [checkpoint=FILE] [key=value …]``."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import CRF_BACKENDS, BackboneConfig, DatasetConfig, key
from eagle.downloads.catalog import require_checkpoint
from eagle.files import default_folder


@dataclass
class VisualizeConfig(DatasetConfig, BackboneConfig):
    """Keys of ``visualize_eigen.py``. Backbone keys apply only without a checkpoint."""

    images: list[str] = key([], "Images and folders of images")
    bundled: bool = key(False, "Also draw the photographs bundled with scikit-image and scikit-learn")
    split: str = key(
        "val",
        "Split of the named dataset, or of the checkpoint's dataset if nothing is named",
        choices=("train", "val"),
    )
    max_images: int | None = key(16, "Maximum number of images, evenly spread over those named; none = all", minimum=1)

    checkpoint: str | None = key(
        None, "Trained segmenter; none = bare backbone: normalised keys replace codes, no final clusters"
    )
    res: int | None = key(
        None, "Short side of the model input in pixels, without cropping; none = the run's val_res, or about 320",
        minimum=1,
    )  # fmt: skip
    n_eigenvectors: int | None = key(
        None,
        "Number of eigenvectors without the trivial one; none = those that EiCue uses, or 3 without a checkpoint",
        minimum=1,
    )
    n_clusters: int | None = key(
        None,
        "Number of k-means clusters; none = as many as EiCue has labels in the image. Without a checkpoint also the "
        "number of EiCue labels; none = 8",
        minimum=1,
    )
    color_affinity: str | None = key(
        None, "Variant of the colour affinity; none = the run's, or released", choices=("released", "paper")
    )
    run_crf: bool = key(False, "Refine final clusters with a dense CRF")
    crf_backend: str = key("auto", "Dense CRF implementation, see eval_segmentation.py", choices=CRF_BACKENDS)
    seed: int = key(0, "Seed of k-means", minimum=0)

    output_dir: str = key(default_folder("outputs/eigen"), "Folder for the figures", path=True)
    panels: bool = key(
        False, "Also write each panel as a file; label maps are palette PNGs whose indices are the labels"
    )
    panel_scale: int = key(2, "Size of those files relative to the model input", minimum=1, maximum=32)
    panel_width: int = key(240, "Width of the panels of a grid in pixels; text scales with it", minimum=32)
    rows_per_grid: int = key(8, "Maximum number of rows in a grid", minimum=1)
    accelerator: str = key("auto", "Lightning accelerator: auto, cpu, gpu, mps …")
    precision: str = key(
        "32-true", "Lightning precision of backbone and head", choices=("32-true", "16-mixed", "bf16-mixed")
    )


def visualize_eigen(cfg: DictConfig) -> None:
    """Draw one row per image, as in the paper: Laplacian eigenvectors, EiCue, k-means of the keys, final clusters."""
    if cfg.checkpoint is not None:
        require_checkpoint(Path(cfg.checkpoint), "checkpoint")
    from eagle.inference.eigen_pictures import visualize

    outcome = visualize(cfg)
    left_out = f", {len(outcome.unreadable)} left out" if outcome.unreadable else ""
    print(f"{outcome.n_shown} of {outcome.n_named} images{left_out}: {' '.join(map(str, outcome.grids))}")


def main() -> None:
    """Run the command."""
    run_command(VisualizeConfig, visualize_eigen, positional="images")


if __name__ == "__main__":
    main()
