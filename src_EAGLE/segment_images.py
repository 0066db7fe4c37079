"""Write masks for your own images: ``python segment_images.py IMAGE_OR_FOLDER … --checkpoint CHECKPOINT``."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.refinement import REFINEMENTS
from eagle.config.schema import CRF_BACKENDS, REQUIRED, MachineConfig, key
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import DataError
from eagle.files import default_folder


@dataclass
class SegmentConfig(MachineConfig):
    """Every key of ``segment_images.py``."""

    images: list[str] = key([], "Images, folders of images, or videos")
    bundled: bool = key(False, "Also segment the photographs that come with scikit-image and scikit-learn")
    checkpoint: str = key(REQUIRED, "Trained segmenter: a .ckpt (released or ours) or a .safetensors with its .yml")
    output_dir: str = key(default_folder("outputs/segments"), "Folder of masks, segments.json, legend.png", path=True)
    cluster_names: str | None = key(
        None, "Text file with one cluster name per line: equal names form one class, an empty line means no class"
    )
    probe: str = key(
        "cluster",
        "Probe that makes the masks: cluster (trained without labels) or linear (trained with labels)",
        choices=("cluster", "linear"),
    )
    res: int | None = key(None, "Short side in pixels at the model's input; none = the run's val_res", minimum=1)
    full_resolution: bool = key(False, "Process images at their own size in windows, which finds small objects")
    window: int | None = key(
        None,
        "Side of the windows that larger images are split into; none = val_res with full_resolution, else no windows",
        minimum=1,
    )
    frame_rate: float | None = key(
        None,
        "Also join each folder's overlays, in order of file names, to a video with this many frames per second",
        above=0,
    )
    run_crf: bool = key(False, "Refine borders with a dense CRF (on at most 640×480 pixels); see refine")
    refine: str = key(
        "auto",
        "Refinement: crf = dense CRF; spectral = class probabilities smoothed on the image's own patch graph; both = "
        "spectral, and then the CRF; none = neither; auto = crf if run_crf, else none",
        choices=REFINEMENTS,
    )
    crf_backend: str = key("auto", "Dense CRF: see eval_segmentation.py", choices=CRF_BACKENDS)
    batch_size: int = key(
        8, "Images of one size that are computed together on each device; more use more memory", minimum=1
    )
    num_workers: int = key(4, "Threads per device that read images, and as many that write masks", minimum=1)
    rank_timeout: float = key(
        86400, "Seconds that a device's process waits for those of the others at the end", above=0
    )


def segment_images(cfg: DictConfig) -> None:
    """Write ids, colours and an overlay of each image in its own size, and a JSON with the share of each class.

    The same command goes on after an interruption and skips the files that are finished.
    """
    require_checkpoint(Path(cfg.checkpoint), "checkpoint")
    from eagle.inference.folders import JSON_NAME, segment

    content = segment(cfg)
    if content is None:  # rank 0 says it
        return
    done, left_out = content["already_done"], len(content["unreadable"])
    if not content["images"]:
        raise DataError(f"none of the {left_out} files could be segmented: {cfg.output_dir}/{JSON_NAME} says why")
    counts = {"already done": done, "segmented": len(content["images"]) - done}
    shown = [f"{n} {what}" for what, n in counts.items() if n]
    print(f"{', '.join(shown)}, {left_out} left out: {cfg.output_dir}/{JSON_NAME}")


def main() -> None:
    """Run the command."""
    run_command(SegmentConfig, segment_images, positional="images")


if __name__ == "__main__":
    main()
