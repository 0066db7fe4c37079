"""Commands about photographs: write masks, draw eigenvectors, serve the web page."""

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.refinement import REFINEMENTS
from eagle.config.schema import (
    CRF_BACKENDS,
    MOST_SEED,
    PRECISIONS,
    REQUIRED,
    BackboneConfig,
    DeviceConfig,
    option,
)
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import ConfigError, DataError
from eagle.files import default_folder


@dataclass
class SegmenterConfig:
    """A trained segmenter."""

    checkpoint: str = option(REQUIRED, "Trained segmenter: a .ckpt (released or ours) or a .safetensors with its .yml")
    cluster_names: str | None = option(
        None, "Text file with one cluster name per line: equal names form one class, an empty line means no class"
    )


@dataclass
class SegmentConfig(SegmenterConfig, DeviceConfig):
    """Every key of ``segment_images.py``."""

    images: list[str] = option([], "Images, folders of images, or videos")
    bundled: bool = option(False, "Also segment the photographs that come with scikit-image and scikit-learn")
    output_dir: str = option(
        default_folder("outputs/segments"), "Folder of masks, segments.json, legend.png", path=True
    )
    n_clusters: int | None = option(
        None,
        "Number of clusters at which the tree of fit_clusters.py is cut; none = the lines of cluster_names, or else as "
        "many as the trained probe has",
        minimum=1,
    )
    probe: str = option(
        "cluster",
        "Probe that makes the masks: cluster (trained without labels) or linear (trained with labels)",
        choices=("cluster", "linear"),
    )
    res: int | None = option(None, "Short side in pixels at the model's input; none = the run's val_res", minimum=1)
    full_resolution: bool = option(False, "Process images at their own size in windows, which finds small objects")
    window: int | None = option(
        None,
        "Side of the windows that larger images are split into; none = val_res with full_resolution, else no windows",
        minimum=1,
    )
    run_crf: bool = option(False, "Refine borders with a dense CRF (on at most 640×480 pixels); see refine")
    refine: str = option(
        "auto",
        "Refinement: crf = dense CRF; spectral = class probabilities smoothed on the image's own patch graph; both = "
        "spectral, and then the CRF; none = neither; auto = both if run_crf, else spectral",
        choices=REFINEMENTS,
    )
    flip: bool = option(
        False, "Average the codes of each image and of its mirror image, as in evaluation; takes twice as long"
    )
    crf_backend: str = option("auto", "Dense CRF: see eval_segmentation.py", choices=CRF_BACKENDS)
    batch_size: int = option(8, "Images of one size that are computed together; more use more memory", minimum=1)
    num_workers: int = option(4, "Threads that read images, and as many that write masks", minimum=1)


def segment_images(cfg: DictConfig) -> None:
    """Write ids, colours and an overlay of each image in its own size, and a JSON with the share of each class.

    The same command goes on after an interruption and skips the files that are finished.
    """
    require_checkpoint(Path(cfg.checkpoint), "checkpoint")
    from eagle.inference.folders import JSON_NAME, segment

    content = segment(cfg)
    done, left_out = content["already_done"], len(content["unreadable"])
    if not content["images"]:
        raise DataError(f"none of the {left_out} files could be segmented: {cfg.output_dir}/{JSON_NAME} says why")
    counts = {"already done": done, "segmented": len(content["images"]) - done}
    shown = [f"{n} {what}" for what, n in counts.items() if n]
    print(f"{', '.join(shown)}, {left_out} left out: {cfg.output_dir}/{JSON_NAME}")


segment_images_main = partial(run_command, SegmentConfig, segment_images, positional="images")


@dataclass
class VisualizeConfig(BackboneConfig, DeviceConfig):
    """Keys of ``visualize_eigen.py``. Backbone keys apply only without a checkpoint."""

    images: list[str] = option([], "Images and folders of images")
    bundled: bool = option(False, "Also draw the photographs bundled with scikit-image and scikit-learn")
    split: str = option(
        "val",
        "Split of the checkpoint's dataset, which is drawn if no image is named",
        choices=("train", "val"),
    )
    pytorch_data_dir: str | None = option(None, "Folder of that dataset; none = as in training", path=True)
    max_images: int = option(16, "Maximum number of images, evenly spread over those named", minimum=1, maximum=200)

    checkpoint: str | None = option(
        None, "Trained segmenter; none = bare backbone: normalised keys replace codes, no final clusters"
    )
    res: int | None = option(
        None, "Short side of the model input in pixels, without cropping; none = the run's val_res, or about 320",
        minimum=1,
    )  # fmt: skip
    n_eigenvectors: int | None = option(
        None,
        "Number of eigenvectors without the trivial one; none = those that EiCue uses, or 3 without a checkpoint",
        minimum=1,
    )
    n_clusters: int | None = option(
        None,
        "Number of k-means clusters; none = as many as EiCue has labels in the image. Without a checkpoint also the "
        "number of EiCue labels; none = 8",
        minimum=1,
    )
    run_crf: bool = option(False, "Refine final clusters with a dense CRF, after spectral refinement")
    crf_backend: str = option("auto", "Dense CRF implementation, see eval_segmentation.py", choices=CRF_BACKENDS)
    seed: int = option(0, "Seed of k-means", minimum=0, maximum=MOST_SEED)

    output_dir: str = option(default_folder("outputs/eigen"), "Folder for the figures", path=True)
    panels: bool = option(
        False, "Also write each panel as a file; label maps are palette PNGs whose indices are the labels"
    )


def visualize_eigen(cfg: DictConfig) -> None:
    """Draw one row per image, as in the paper: Laplacian eigenvectors, EiCue, k-means of the keys, final clusters."""
    if cfg.checkpoint is not None:
        require_checkpoint(Path(cfg.checkpoint), "checkpoint")
    from eagle.inference.eigen_pictures import visualize

    print(visualize(cfg))


visualize_eigen_main = partial(run_command, VisualizeConfig, visualize_eigen, positional="images")


@dataclass
class DemoConfig(SegmenterConfig):
    """Every key of ``demo.py``."""

    device: str = option("auto", "auto = a CUDA GPU, else Apple's GPU, else the CPU; or cpu, mps, cuda, cuda:1")
    precision: str = option("32-true", "Lightning precision of backbone and head", choices=PRECISIONS)
    host: str = option(
        "127.0.0.1", "Address to listen on: 127.0.0.1 = this computer only, 0.0.0.0 = your whole network"
    )
    port: int = option(7860, "Port to listen on; 0 = any free one", minimum=0, maximum=65535)


def demo(cfg: DictConfig) -> None:
    """Serve a web page that segments photographs and shows eigenvectors and EiCue, until Ctrl-C.

    The page loads nothing from other addresses, and usage statistics are off.
    """
    require_checkpoint(Path(cfg.checkpoint), "checkpoint")
    if find_spec("gradio") is None:
        raise ConfigError("the page needs gradio: pip install -e .[demo]")
    from eagle.demo.server import serve

    serve(cfg)


demo_main = partial(run_command, DemoConfig, demo)
